package qverr

import (
	"strconv"
	"syscall"
)

func (c Code) String() string { return strconv.Itoa(int(c)) }

// Error makes a bare Code usable as an errors.Is target.
func (c Code) Error() string { return c.String() }

// FromErrno maps an errno to its code.
func FromErrno(errno syscall.Errno) Code {
	switch errno {
	case syscall.EPERM, syscall.EACCES:
		return Perm
	case syscall.ENOENT:
		return NoEnt
	}
	return Generic
}
