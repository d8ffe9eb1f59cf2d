package qverr

import "syscall"

// ErrnoRow maps one errno of Linux to its code.
type ErrnoRow struct {
	Errno syscall.Errno
	Name  string
	Code  Code
	// Fixed marks the rows of the reference; the others are the nearest code.
	Fixed bool
}

// errnoRows is ordered by number.
var errnoRows = []ErrnoRow{
	{syscall.EPERM, "EPERM", Perm, true},
	{syscall.ENOENT, "ENOENT", NoEnt, true},
	{syscall.ESRCH, "ESRCH", NoEnt, false},
	{syscall.EINTR, "EINTR", Again, false},
	{syscall.EIO, "EIO", IO, true},
	{syscall.ENXIO, "ENXIO", NoDev, false},
	{syscall.E2BIG, "E2BIG", Inval, false},
	{syscall.EBADF, "EBADF", Inval, false},
	{syscall.EAGAIN, "EAGAIN", Again, true},
	{syscall.ENOMEM, "ENOMEM", NoMem, true},
	{syscall.EACCES, "EACCES", Perm, true},
	{syscall.EFAULT, "EFAULT", Inval, false},
	{syscall.ENOTBLK, "ENOTBLK", NoDev, false},
	{syscall.EBUSY, "EBUSY", Busy, true},
	{syscall.EEXIST, "EEXIST", Exist, true},
	{syscall.EXDEV, "EXDEV", Unsupported, false},
	{syscall.ENODEV, "ENODEV", NoDev, true},
	{syscall.ENOTDIR, "ENOTDIR", Inval, false},
	{syscall.EISDIR, "EISDIR", Inval, false},
	{syscall.EINVAL, "EINVAL", Inval, true},
	{syscall.ENFILE, "ENFILE", Limit, false},
	{syscall.EMFILE, "EMFILE", Limit, false},
	{syscall.ENOTTY, "ENOTTY", Unsupported, false},
	{syscall.ETXTBSY, "ETXTBSY", Busy, false},
	{syscall.EFBIG, "EFBIG", NoSpc, false},
	{syscall.ENOSPC, "ENOSPC", NoSpc, true},
	{syscall.EROFS, "EROFS", StrReadonly, false},
	{syscall.EMLINK, "EMLINK", Limit, false},
	{syscall.EPIPE, "EPIPE", IO, false},
	{syscall.EDOM, "EDOM", Inval, false},
	{syscall.ERANGE, "ERANGE", Inval, false},
	{syscall.EDEADLK, "EDEADLK", Busy, false},
	{syscall.ENAMETOOLONG, "ENAMETOOLONG", Inval, false},
	{syscall.ENOSYS, "ENOSYS", Unsupported, false},
	{syscall.ENOTEMPTY, "ENOTEMPTY", Exist, false},
	{syscall.ELOOP, "ELOOP", Inval, false},
	{syscall.ENODATA, "ENODATA", NoEnt, false},
	{syscall.ETIME, "ETIME", Timeout, false},
	{syscall.ENOLINK, "ENOLINK", IO, false},
	{syscall.EPROTO, "EPROTO", IO, false},
	{syscall.EBADMSG, "EBADMSG", IO, false},
	{syscall.EOVERFLOW, "EOVERFLOW", Inval, false},
	{syscall.EBADFD, "EBADFD", State, false},
	{syscall.EILSEQ, "EILSEQ", Inval, false},
	{syscall.EUSERS, "EUSERS", Limit, false},
	{syscall.EMSGSIZE, "EMSGSIZE", Inval, false},
	{syscall.EPROTONOSUPPORT, "EPROTONOSUPPORT", Unsupported, false},
	{syscall.ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT", Unsupported, false},
	{syscall.EOPNOTSUPP, "EOPNOTSUPP", Unsupported, false},
	{syscall.EAFNOSUPPORT, "EAFNOSUPPORT", Unsupported, false},
	{syscall.EADDRINUSE, "EADDRINUSE", Busy, false},
	{syscall.EADDRNOTAVAIL, "EADDRNOTAVAIL", Inval, false},
	{syscall.ENETDOWN, "ENETDOWN", IO, false},
	{syscall.ENETUNREACH, "ENETUNREACH", IO, false},
	{syscall.ENETRESET, "ENETRESET", IO, false},
	{syscall.ECONNABORTED, "ECONNABORTED", IO, false},
	{syscall.ECONNRESET, "ECONNRESET", IO, false},
	{syscall.ENOBUFS, "ENOBUFS", NoMem, false},
	{syscall.ENOTCONN, "ENOTCONN", IO, false},
	{syscall.ESHUTDOWN, "ESHUTDOWN", IO, false},
	{syscall.ETIMEDOUT, "ETIMEDOUT", Timeout, true},
	{syscall.ECONNREFUSED, "ECONNREFUSED", IO, false},
	{syscall.EHOSTDOWN, "EHOSTDOWN", IO, false},
	{syscall.EHOSTUNREACH, "EHOSTUNREACH", IO, false},
	{syscall.EALREADY, "EALREADY", Busy, false},
	{syscall.EINPROGRESS, "EINPROGRESS", Busy, false},
	{syscall.ESTALE, "ESTALE", NoEnt, false},
	{syscall.EUCLEAN, "EUCLEAN", StrFormat, false},
	{syscall.EREMOTEIO, "EREMOTEIO", IO, false},
	{syscall.EDQUOT, "EDQUOT", NoSpc, false},
	{syscall.ENOMEDIUM, "ENOMEDIUM", NoDev, false},
	{syscall.EMEDIUMTYPE, "EMEDIUMTYPE", StrFormat, false},
	{syscall.ENOKEY, "ENOKEY", PQCKeyNotFound, false},
	{syscall.EKEYEXPIRED, "EKEYEXPIRED", PQCKeyExpired, false},
	{syscall.EKEYREJECTED, "EKEYREJECTED", PQCVerify, false},
}

// ErrnoRows returns the errno mapping, ordered by number.
func ErrnoRows() []ErrnoRow { return append([]ErrnoRow(nil), errnoRows...) }

// FromErrno maps an errno to its code: 0 to Success, an errno outside the
// table to Generic.
func FromErrno(errno syscall.Errno) Code {
	if errno == 0 {
		return Success
	}
	for _, row := range errnoRows {
		if row.Errno == errno {
			return row.Code
		}
	}
	return Generic
}

// ToErrno returns the Linux errno closest to a code, 0 for Success.
func ToErrno(c Code) syscall.Errno { return entryOf(c).Errno }

// errnoNames holds errnos that only ToErrno uses.
var errnoNames = map[syscall.Errno]string{
	syscall.ECANCELED:       "ECANCELED",
	syscall.ENOTRECOVERABLE: "ENOTRECOVERABLE",
}

// ErrnoName is the symbolic name of an errno that occurs in the catalogue.
func ErrnoName(errno syscall.Errno) string {
	for _, row := range errnoRows {
		if row.Errno == errno {
			return row.Name
		}
	}
	return errnoNames[errno]
}
