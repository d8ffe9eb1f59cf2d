package fat32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"quantavirt/internal/qverr"
)

// Disk is a volume that can be changed.
type Disk interface {
	io.ReaderAt
	io.WriterAt
}

const (
	stateOffset = 65 // in the boot sector; Linux keeps its "not unmounted" there
	stateDirty  = 1
	tableClean  = 0x08000000 // in the table's second entry; firmware keeps its own there (specification, "ClnShutBitMask")

	clusterMask = 0x0fffffff
	badCluster  = 0x0ffffff7
	lastCluster = 0x0fffffff
	firstLast   = 0x0ffffff8 // this and above end a chain

	maxTable = 1 << 22 // clusters that are repaired, at most
	maxDepth = 16      // of folders
	maxInDir = 1 << 16 // entries of a folder: specification, section "Directory Structure"
)

// In the records of a directory; see write.go.
const (
	recordFree   = 0xe5
	recordAttr   = 11
	recordHigh   = 20 // of the first cluster
	recordLow    = 26
	recordLength = 28
)

// Repair makes whole what a power cut left half done on a volume that was not
// unmounted in order; any other is left alone. It tells whether there was something to
// do.
//
// FAT has no journal: the table, the folders and the files reach the disk in no order.
// A file or folder keeps its clusters up to the first that is free or another's, and the
// size of a file is cut to them. Of two names for one file, as a rename leaves them, the
// second goes; a folder that was never written goes. What belongs to nothing is free
// again. Repair can itself be interrupted, and is then begun anew.
//
// QV_ERR_UNSUPPORTED: it is no FAT32 volume of a usual form.
func Repair(d Disk) (repaired bool, err error) {
	r, err := openRepair(d)
	if err != nil || r == nil {
		return false, err
	}
	err = r.folder(r.root, 0)
	if err == nil {
		err = r.save()
	}
	if err != nil {
		return false, fmt.Errorf("fat32: repair: %w", err)
	}
	return true, nil
}

// repair is a volume being repaired.
type repair struct {
	d        Disk
	boot     []byte
	sector   int64 // bytes
	cluster  int64 // bytes
	reserved int64 // sectors
	tables   int64
	fat      int64 // sectors of one table
	info     int64 // sector of FSInfo, 0 for none
	root     uint32
	table    []uint32 // the first one, by cluster
	used     []bool
}

// openRepair reads the tables; nil: there is nothing to do.
func openRepair(d Disk) (*repair, error) {
	b := make([]byte, 512)
	if _, err := d.ReadAt(b, 0); err != nil {
		return nil, qverr.New(qverr.IO, "fat32: repair: %w", err)
	}
	le := binary.LittleEndian
	r := &repair{d: d, boot: b, sector: int64(le.Uint16(b[11:])), reserved: int64(le.Uint16(b[14:])), tables: int64(b[16]),
		fat: int64(le.Uint32(b[36:])), root: le.Uint32(b[44:]), info: int64(le.Uint16(b[48:]))}
	per := int64(b[13])
	r.cluster = per * r.sector
	power := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	usual := string(b[82:90]) == "FAT32   " && b[510] == 0x55 && b[511] == 0xaa && power(r.sector) && r.sector >= 512 && r.sector <= 4096 &&
		power(per) && r.reserved > 0 && r.tables >= 1 && r.tables <= 2 && le.Uint16(b[22:]) == 0
	if !usual {
		return nil, qverr.New(qverr.Unsupported, "fat32: repair: not a FAT32 volume of a usual form")
	}
	second := make([]byte, 4)
	if _, err := d.ReadAt(second, r.reserved*r.sector+4); err != nil {
		return nil, qverr.New(qverr.IO, "fat32: repair: %w", err)
	}
	if b[stateOffset]&stateDirty == 0 && le.Uint32(second)&tableClean != 0 {
		return nil, nil
	}
	clusters := (int64(le.Uint32(b[32:])) - r.reserved - r.tables*r.fat) / per
	if clusters < 1 || clusters > maxTable || clusters+2 > r.fat*r.sector/4 || r.info >= r.reserved {
		return nil, qverr.New(qverr.Unsupported, "fat32: repair: %d clusters, a table of %d sectors", clusters, r.fat)
	}
	raw := make([]byte, (clusters+2)*4)
	if _, err := d.ReadAt(raw, r.reserved*r.sector); err != nil {
		return nil, qverr.New(qverr.IO, "fat32: repair: %w", err)
	}
	r.table, r.used = make([]uint32, clusters+2), make([]bool, clusters+2)
	for i := range r.table {
		r.table[i] = le.Uint32(raw[4*i:])
	}
	return r, nil
}

func (r *repair) offset(cluster uint32) int64 {
	return (r.reserved+r.tables*r.fat)*r.sector + int64(cluster-rootCluster)*r.cluster
}

func (r *repair) set(cluster, next uint32) {
	r.table[cluster] = r.table[cluster]&^clusterMask | next
}

// chain takes the clusters of a file or folder, at most n, and ends it where it breaks
// off.
func (r *repair) chain(first uint32, n int64) []uint32 {
	var list []uint32
	for c := first & clusterMask; int64(len(list)) < n; {
		if c < rootCluster || int(c) >= len(r.table) || r.used[c] || r.table[c]&clusterMask == 0 || r.table[c]&clusterMask == badCluster {
			break
		}
		r.used[c] = true
		list = append(list, c)
		if c = r.table[c] & clusterMask; c >= firstLast {
			break
		}
	}
	if len(list) > 0 {
		if last := list[len(list)-1]; r.table[last]&clusterMask < firstLast {
			r.set(last, lastCluster)
		}
	}
	return list
}

// folder repairs a folder and all below it.
func (r *repair) folder(first uint32, depth int) error {
	clusters := r.chain(first, maxInDir*recordSize/r.cluster+1)
	if len(clusters) == 0 || depth > maxDepth {
		return qverr.New(qverr.Unsupported, "a folder without clusters, or %d folders deep", depth)
	}
	data := make([]byte, int64(len(clusters))*r.cluster)
	for i, c := range clusters {
		if _, err := r.d.ReadAt(data[int64(i)*r.cluster:][:r.cluster], r.offset(c)); err != nil {
			return qverr.New(qverr.IO, "%w", err)
		}
	}
	was := string(data)
	long := 0 // long entries right before this one
	for at := 0; at < len(data) && data[at] != 0; at += recordSize {
		e := data[at : at+recordSize]
		switch {
		case e[0] == recordFree:
			long = 0
			continue
		case e[recordAttr]&0x3f == attrLong:
			long++
			continue
		}
		keep, err := r.entry(e, depth)
		if err != nil {
			return err
		}
		for i := 0; i <= long && !keep; i++ {
			data[at-i*recordSize] = recordFree
		}
		long = 0
	}
	for i, c := range clusters {
		part := data[int64(i)*r.cluster:][:r.cluster]
		if was[int64(i)*r.cluster:][:r.cluster] == string(part) {
			continue
		}
		if _, err := r.d.WriteAt(part, r.offset(c)); err != nil {
			return qverr.New(qverr.IO, "%w", err)
		}
	}
	return nil
}

// entry repairs what an entry names; false: the entry goes.
func (r *repair) entry(e []byte, depth int) (keep bool, err error) {
	le := binary.LittleEndian
	first := (uint32(le.Uint16(e[recordHigh:]))<<16 | uint32(le.Uint16(e[recordLow:]))) & clusterMask
	size := int64(le.Uint32(e[recordLength:]))
	switch {
	case e[recordAttr]&attrLabel != 0, e[0] == '.':
		return true, nil
	case first >= rootCluster && int(first) < len(r.table) && r.used[first]:
		return false, nil // another name for something that has one
	case e[recordAttr]&attrDir != 0:
		if !r.isFolder(first) {
			return false, nil
		}
		return true, r.folder(first, depth+1)
	}
	var clusters []uint32
	if first != 0 {
		clusters = r.chain(first, (size+r.cluster-1)/r.cluster)
	}
	if len(clusters) == 0 {
		le.PutUint16(e[recordHigh:], 0)
		le.PutUint16(e[recordLow:], 0)
	}
	le.PutUint32(e[recordLength:], uint32(min(size, int64(len(clusters))*r.cluster)))
	return true, nil
}

// isFolder tells whether a cluster is the first of a folder that was written.
func (r *repair) isFolder(first uint32) bool {
	if first < rootCluster || int(first) >= len(r.table) || r.table[first]&clusterMask == 0 {
		return false
	}
	dots := make([]byte, 2*recordSize)
	_, err := r.d.ReadAt(dots, r.offset(first))
	return err == nil && string(dots[:11]) == ".          " && string(dots[recordSize:][:11]) == "..         "
}

// save frees what belongs to nothing, and writes tables and counts; last that the
// volume is in order.
func (r *repair) save() error {
	free := uint32(0)
	r.table[1] |= tableClean
	raw := make([]byte, len(r.table)*4)
	for c := range r.table {
		next := r.table[c] & clusterMask
		if c >= rootCluster && !r.used[c] && next != badCluster {
			r.set(uint32(c), 0)
			free++
		}
		binary.LittleEndian.PutUint32(raw[4*c:], r.table[c])
	}
	for i := range r.tables {
		if err := r.update(raw, (r.reserved+i*r.fat)*r.sector); err != nil {
			return err
		}
	}
	if err := r.count(free); err != nil {
		return err
	}
	r.boot[stateOffset] &^= stateDirty
	_, err := r.d.WriteAt(r.boot, 0)
	return joinIO(err, r.sync())
}

// update writes those sectors that are others than on the disk.
func (r *repair) update(data []byte, at int64) error {
	old := make([]byte, r.sector)
	for len(data) > 0 {
		n := min(int64(len(data)), r.sector)
		if _, err := r.d.ReadAt(old[:n], at); err != nil {
			return joinIO(err)
		}
		if string(old[:n]) != string(data[:n]) {
			if _, err := r.d.WriteAt(data[:n], at); err != nil {
				return joinIO(err)
			}
		}
		data, at = data[n:], at+n
	}
	return nil
}

// count writes the number of free clusters into FSInfo (specification, section
// "FSInfo Sector Structure"), and brings all so far to the disk.
func (r *repair) count(free uint32) error {
	if r.info != 0 {
		b := make([]byte, 512)
		_, err := r.d.ReadAt(b, r.info*r.sector)
		if err == nil && string(b[:4]) == "RRaA" {
			binary.LittleEndian.PutUint32(b[488:], free)
			_, err = r.d.WriteAt(b, r.info*r.sector)
		}
		if err != nil {
			return joinIO(err)
		}
	}
	return r.sync()
}

func (r *repair) sync() error {
	if s, ok := r.d.(interface{ Sync() error }); ok {
		return joinIO(s.Sync())
	}
	return nil
}

func joinIO(errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return qverr.New(qverr.IO, "%w", err)
	}
	return nil
}
