package qverr

import (
	"errors"
	"fmt"
	"slices"
)

// ErrUnreachable is wrapped by the client when it got no answer from the API,
// whatever the reason; the exit code is then ExitConnection.
var ErrUnreachable = errors.New("the API cannot be reached")

// Exit codes with a meaning beyond a single catalogue code.
const (
	ExitGeneral    = 1
	ExitConnection = 12
)

// ExitEntry is one exit code of the command line.
type ExitEntry struct {
	Exit    int
	Summary string
	Codes   []Code // in catalogue order; empty for those without a code
}

var exitSummaries = []ExitEntry{
	{Exit: 0, Summary: "Success"},
	{Exit: 1, Summary: "General error, and every code without an exit code of its own"},
	{Exit: 2, Summary: "Invalid arguments, usage or configuration"},
	{Exit: 3, Summary: "The resource was not found"},
	{Exit: 4, Summary: "Permission denied or not authenticated"},
	{Exit: 5, Summary: "Conflict with the state of a resource"},
	{Exit: 6, Summary: "Hardware is not available"},
	{Exit: 7, Summary: "Not enough resources"},
	{Exit: 8, Summary: "Input or output failed"},
	{Exit: 9, Summary: "Timeout"},
	{Exit: 10, Summary: "Error of post-quantum cryptography"},
	{Exit: 11, Summary: "Error of a migration"},
	{Exit: 12, Summary: "The API could not be reached"},
	{Exit: 125, Summary: "Feature not supported"},
}

// Exits returns the exit codes with the catalogue codes that lead to each.
func Exits() []ExitEntry {
	out := slices.Clone(exitSummaries)
	for i := range out {
		for _, e := range catalogue().all {
			if e.ExitCode == out[i].Exit {
				out[i].Codes = append(out[i].Codes, e.Code)
			}
		}
	}
	return out
}

// ExitCode is the exit status of a command that ended with err.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, ErrUnreachable) {
		return ExitConnection
	}
	return entryOf(CodeOf(err)).ExitCode
}

func lookupExit(n int) (ExitEntry, error) {
	for _, e := range Exits() {
		if e.Exit == n {
			return e, nil
		}
	}
	return ExitEntry{}, New(NoEnt, "no exit code %d", n)
}

// HTTPRow is one status of the closed set that the API answers with.
type HTTPRow struct {
	Status  int
	Meaning string
}

var httpRows = []HTTPRow{
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{409, "Conflict"},
	{422, "Unprocessable Entity"},
	{429, "Too Many Requests"},
	{500, "Internal Server Error"},
	{503, "Service Unavailable"},
	{507, "Insufficient Storage"},
}

// HTTPStatuses returns the closed set of statuses for errors.
func HTTPStatuses() []HTTPRow { return slices.Clone(httpRows) }

const malformedKey = "malformed"

// Malformed makes a Config error for a document that cannot be parsed at all
// (broken JSON, a value of the wrong JSON type): status 400 instead of 422.
func Malformed(format string, args ...any) *Error {
	return New(Config, "%w", fmt.Errorf(format, args...)).With(malformedKey, true)
}

// HTTPStatus is the status of an API answer that reports err; 200 for nil.
func HTTPStatus(err error) int {
	e := From(err)
	if e == nil {
		return 200
	}
	if e.Code == Config && e.Details[malformedKey] == true {
		return 400
	}
	return entryOf(e.Code).HTTPStatus
}
