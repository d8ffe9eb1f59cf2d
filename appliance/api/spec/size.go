package spec

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes. In JSON it is a number, or a string of digits
// with one of the suffixes K, M, G, T (powers of 1024); it is written as the
// shortest string that is exact.
type ByteSize int64

const sizeSuffixes = "KMGT"

// ParseSize reads "512M", "1073741824", "2G". The number must not be negative
// and must fit into 63 bits.
func ParseSize(s string) (ByteSize, error) {
	digits, shift := s, 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte(sizeSuffixes, s[n-1]); i >= 0 {
			digits, shift = s[:n-1], 10*(i+1)
		}
	}
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, fmt.Errorf("size %q is not a number with an optional K, M, G or T", s)
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("size %q: %w", s, err)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return ByteSize(n << shift), nil
}

// String is the shortest exact form with a suffix.
func (b ByteSize) String() string {
	n, suffix := int64(b), ""
	for i := range sizeSuffixes {
		if n == 0 || n&1023 != 0 {
			break
		}
		n, suffix = n>>10, sizeSuffixes[i:i+1]
	}
	return strconv.FormatInt(n, 10) + suffix
}

// MarshalJSON writes the String form.
func (b ByteSize) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }

// UnmarshalJSON reads a number of bytes or a string with a suffix.
func (b *ByteSize) UnmarshalJSON(data []byte) error {
	var s string
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	} else {
		var n json.Number
		if err := json.Unmarshal(data, &n); err != nil {
			return err
		}
		s = n.String()
	}
	n, err := ParseSize(s)
	if err != nil {
		return err
	}
	*b = n
	return nil
}
