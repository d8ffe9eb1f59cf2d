package fat32

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"quantavirt/internal/qverr"
)

// Volume is a file system to be made.
type Volume struct {
	Label      string    // 1 to 11 characters: A-Z, 0-9, space, - and _
	Serial     uint32    // volume id
	Size       int64     // bytes; what exceeds a multiple of the sector is not used
	SectorSize int       // of the disk: 512 or 4096
	Hidden     uint32    // sectors of the disk before the volume
	Time       time.Time // of every file, 1980 to 2107; kept in UTC, to 2 s
	Files      []File
}

// File is a file of a new volume. Its directories come with it.
type File struct {
	Name string // path of names with 1 to 255 characters of printable ASCII, such as EFI/BOOT/BOOTX64.EFI
	Size int64  // bytes, less than 4 GiB
	Open func() (io.ReadCloser, error)
}

// Bytes is a File of text.
func Bytes(name string, data []byte) File {
	return File{Name: name, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(data))), nil
	}}
}

// CopyTo writes the file's bytes, exactly as many as it claims to have.
func (f File) CopyTo(w io.Writer) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(in, f.Size+1), make([]byte, 1<<20))
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	if n != f.Size {
		return fmt.Errorf("%s has %d bytes or more instead of %d: %w", f.Name, n, f.Size, io.ErrUnexpectedEOF)
	}
	return nil
}

// Extent says where the bytes of a file lie, from the volume's start.
type Extent struct {
	Name   string
	Offset int64
	Size   int64
}

// Geometry constants: FAT specification, section "Boot Sector and BPB".
const (
	reserved    = 32    // sectors before the first FAT
	copies      = 2     // FATs
	minClusters = 65525 // fewer make it FAT16, whatever else it says
	maxClusters = 0x0ffffff5 - 2
	rootCluster = 2
	fsInfo      = 1 // sectors, within the reserved ones
	backup      = 6
	align       = 2048 // of every file and of the data area
)

// Format writes the volume, whose first byte is w's byte 0, and returns where
// the files lie, in the order of Volume.Files.
func Format(w io.WriterAt, v Volume) ([]Extent, error) {
	f, err := plan(v)
	if err != nil {
		return nil, fmt.Errorf("fat32: %w", err)
	}
	if err := f.write(w); err != nil {
		return nil, fmt.Errorf("fat32: %w", err)
	}
	return f.extents, nil
}

// format is a volume whose layout is decided.
type format struct {
	Volume
	geometry
	table   []uint32 // the FAT, by cluster
	next    uint32   // first cluster not yet allocated
	used    uint32   // clusters
	root    *directory
	extents []Extent
}

// geometry are the numbers that follow from a volume's size.
type geometry struct {
	sector   int64 // bytes
	cluster  int64 // bytes
	sectors  int64 // of the volume
	fat      int64 // sectors of one FAT
	clusters int64
}

// dataStart is the offset of the first cluster, in bytes.
func (g geometry) dataStart() int64 { return (reserved + copies*g.fat) * g.sector }

// offset of a cluster, in bytes.
func (g geometry) offset(cluster uint32) int64 {
	return g.dataStart() + int64(cluster-rootCluster)*g.cluster
}

// measure picks the cluster size: that of Microsoft's table for FAT32
// (specification, "Disk Table for FAT32"), or a smaller one where too few
// clusters for FAT32 would be left.
func measure(v Volume) (geometry, error) {
	if v.SectorSize != 512 && v.SectorSize != 4096 {
		return geometry{}, qverr.New(qverr.Inval, "sectors of %d bytes: want 512 or 4096", v.SectorSize)
	}
	g := geometry{sector: int64(v.SectorSize)}
	g.sectors = v.Size / g.sector
	if g.sectors > math.MaxUint32 {
		return geometry{}, qverr.New(qverr.Inval, "%d sectors are too many", g.sectors)
	}
	switch {
	case v.Size <= 260<<20:
		g.cluster = 512
	case v.Size <= 8<<30:
		g.cluster = 4096
	case v.Size <= 16<<30:
		g.cluster = 8192
	default:
		g.cluster = 16384
	}
	for g.cluster = max(g.cluster, g.sector); ; g.cluster /= 2 {
		g.fill()
		if g.clusters >= minClusters && g.clusters <= maxClusters {
			return g, nil
		}
		if g.cluster == g.sector {
			return geometry{}, qverr.New(qverr.Inval, "%d bytes are too few for FAT32 with sectors of %d", v.Size, g.sector)
		}
	}
}

// fill finds the length of a FAT. Each cluster costs its bytes and an entry of 4
// in both FATs, and two entries stand for none; the length is rounded up so that
// the data area is aligned.
func (g *geometry) fill() {
	data := (g.sectors - reserved) * g.sector
	entries := (data+8*g.cluster)/(g.cluster+4*copies) + 2
	step := max(align/g.sector, 1)
	sectors := (entries*4 + g.sector - 1) / g.sector
	g.fat = (sectors + step - 1) / step * step
	g.clusters = (g.sectors*g.sector - g.dataStart()) / g.cluster
}

// plan allocates every file and directory.
func plan(v Volume) (*format, error) {
	g, err := measure(v)
	if err != nil {
		return nil, err
	}
	if y := v.Time.UTC().Year(); y < 1980 || y > 2107 {
		return nil, qverr.New(qverr.Inval, "the year %d cannot be written", y)
	}
	if err := checkLabel(v.Label); err != nil {
		return nil, err
	}
	root, err := tree(v.Files)
	if err != nil {
		return nil, err
	}
	f := &format{Volume: v, geometry: g, root: root, next: rootCluster}
	f.table = make([]uint32, g.clusters+rootCluster)
	f.table[0], f.table[1] = 0x0ffffff8, 0x0fffffff // media type; clean
	if err := f.placeDirectories(); err != nil {
		return nil, err
	}
	return f, f.placeFiles()
}

// placeDirectories gives every directory its clusters, the root the first.
func (f *format) placeDirectories() error {
	return f.root.walk(func(d *directory) error {
		var err error
		d.first, err = f.allocate(int64(d.records()) * recordSize)
		return err
	})
}

func (f *format) placeFiles() error {
	for _, file := range f.Files {
		if file.Size < 0 || file.Size > math.MaxUint32 {
			return qverr.New(qverr.Inval, "%s: %d bytes do not fit", file.Name, file.Size)
		}
		first, err := f.allocate(file.Size)
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
		dir, name := path.Split(file.Name)
		e := f.root.find(strings.Trim(dir, "/")).child(name)
		e.first, e.size = first, uint32(file.Size)
		x := Extent{Name: file.Name, Size: file.Size}
		if first != 0 {
			x.Offset = f.offset(first)
		}
		f.extents = append(f.extents, x)
	}
	return nil
}

// allocate chains as many clusters as size needs; an empty file has none.
func (f *format) allocate(size int64) (first uint32, err error) {
	if size == 0 {
		return 0, nil
	}
	next := int64(f.next)
	if per := align / f.cluster; per > 1 {
		next = (next-rootCluster+per-1)/per*per + rootCluster
	}
	n := (size + f.cluster - 1) / f.cluster
	if next+n > int64(len(f.table)) {
		return 0, qverr.New(qverr.NoSpc, "the volume is full: %d bytes more do not fit into %d", size, f.Size)
	}
	for i := next; i < next+n-1; i++ {
		f.table[i] = uint32(i + 1)
	}
	f.table[next+n-1] = 0x0fffffff
	f.next, f.used = uint32(next+n), f.used+uint32(n)
	return uint32(next), nil
}
