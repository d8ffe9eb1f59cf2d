package qverr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Error is a failure with its catalogue code. It wraps its cause, so that
// errors.Is and errors.As see through it; errors.Is(err, qverr.NoEnt) is true
// when any Error in the chain carries that code.
type Error struct {
	Code Code
	// Message says what was attempted on what, for people.
	Message string
	// Hint is one line on what to do about it; empty means the recovery text
	// of the catalogue.
	Hint string
	// Details carries machine-readable context, e.g. "path" of a bad field.
	Details map[string]any
	// NotTransient marks a code that is usually worth a retry as final here.
	NotTransient bool

	cause error
}

// New makes an Error; the format may wrap a cause with %w.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: err}
}

// With adds a detail and returns e.
func (e *Error) With(key string, value any) *Error {
	if e.Details == nil {
		e.Details = make(map[string]any)
	}
	e.Details[key] = value
	return e
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, code) work.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && e.Code == code
}

// From returns the outermost Error in err's chain. An err without one gets the
// code of its errno or of its sentinel of the standard library, else Generic.
// From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var code Code
	if errors.As(err, &code) {
		return &Error{Code: code, Message: err.Error(), cause: err}
	}
	return &Error{Code: codeOfForeign(err), Message: err.Error(), cause: err}
}

func codeOfForeign(err error) Code {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return FromErrno(errno)
	}
	for _, known := range []struct {
		sentinel error
		code     Code
	}{
		{fs.ErrNotExist, NoEnt},
		{fs.ErrExist, Exist},
		{fs.ErrPermission, Perm},
		{context.DeadlineExceeded, Timeout},
		{os.ErrDeadlineExceeded, Timeout},
		{io.ErrUnexpectedEOF, IO},
	} {
		if errors.Is(err, known.sentinel) {
			return known.code
		}
	}
	return Generic
}

// CodeOf is From(err).Code, and Success for nil.
func CodeOf(err error) Code {
	if e := From(err); e != nil {
		return e.Code
	}
	return Success
}
