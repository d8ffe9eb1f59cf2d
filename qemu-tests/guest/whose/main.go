// Command whose says what the kernel uses pages of memory for, and which processes have
// them mapped, by physical addresses in hexadecimal
// (Documentation/admin-guide/mm/pagemap.rst).
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const pageSize = 4096

// flags of /proc/kpageflags that tell a use.
var flags = map[int]string{5: "lru", 7: "slab", 10: "buddy", 11: "mmap", 12: "anon", 13: "swapcache", 15: "compound head",
	16: "compound tail", 17: "huge", 18: "unevictable", 20: "no page", 26: "page table", 4: "dirty", 3: "uptodate", 32: "reserved"}

func main() {
	frames := make(map[uint64]string)
	for _, arg := range os.Args[1:] {
		address, err := strconv.ParseUint(strings.TrimPrefix(arg, "0x"), 16, 64)
		if err != nil {
			fmt.Fprintln(os.Stderr, "whose:", err)
			os.Exit(2)
		}
		frames[address/pageSize] = ""
	}
	mapped(frames)
	kinds, err := os.Open("/proc/kpageflags")
	for frame, owners := range frames {
		text := fmt.Sprint(err)
		if err == nil {
			text = uses(kinds, frame)
		}
		fmt.Printf("%#x:%s%s\n", frame*pageSize, text, owners)
	}
}

func uses(kinds *os.File, frame uint64) (text string) {
	var word [8]byte
	if _, err := kinds.ReadAt(word[:], int64(frame*8)); err != nil {
		return " " + err.Error()
	}
	for bit := range 64 {
		if name := flags[bit]; binary.LittleEndian.Uint64(word[:])>>bit&1 != 0 && name != "" {
			text += " " + name
		}
	}
	return text
}

// mapped notes the processes that have the frames mapped.
func mapped(frames map[uint64]string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		name, _ := os.ReadFile(dir + "/comm")
		maps, err := os.Open(dir + "/maps")
		if err != nil {
			continue
		}
		pages, err := os.Open(dir + "/pagemap")
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(maps); lines.Scan(); {
			var from, to uint64
			if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); err != nil || to-from > 1<<32 {
				continue
			}
			words := make([]byte, (to-from)/pageSize*8)
			n, _ := pages.ReadAt(words, int64(from/pageSize*8))
			for i := 0; i+8 <= n; i += 8 {
				frame := binary.LittleEndian.Uint64(words[i:]) & (1<<55 - 1)
				if owners, ok := frames[frame]; ok && frame != 0 {
					f := strings.Fields(lines.Text())
					frames[frame] = fmt.Sprintf("%s; %s %s at %#x, %s %s", owners, filepath.Base(dir), strings.TrimSpace(string(name)),
						from+uint64(i)/8*pageSize, f[1], strings.Join(f[5:], " "))
				}
			}
		}
		maps.Close()
		pages.Close()
	}
}
