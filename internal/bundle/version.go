package bundle

import (
	"math/big"
	"strings"
)

// compareVersions orders versions by their leading numbers; a missing one
// counts as 0, and what follows the numbers (a commit, say) does not count.
func compareVersions(a, b string) int {
	as, bs := numbers(a), numbers(b)
	for i := range max(len(as), len(bs)) {
		if c := at(as, i).Cmp(at(bs, i)); c != 0 {
			return c
		}
	}
	return 0
}

func at(n []*big.Int, i int) *big.Int {
	if i < len(n) {
		return n[i]
	}
	return new(big.Int)
}

// numbers are those that a version begins with: "0.2.1-3-gabc" has 0, 2, 1.
func numbers(version string) []*big.Int {
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	var out []*big.Int
	for part := range strings.SplitSeq(version, ".") {
		n, ok := new(big.Int).SetString(part, 10)
		if !ok {
			break
		}
		out = append(out, n)
	}
	return out
}
