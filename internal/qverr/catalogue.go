package qverr

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Severity tells how much an error matters to the node.
type Severity string

// Severities, rising.
const (
	SevInfo    Severity = "info"    // nothing is wrong
	SevWarning Severity = "warning" // passes by itself or is the caller's to repeat
	SevError   Severity = "error"   // the operation failed, the rest goes on
	SevFatal   Severity = "fatal"   // nothing of this kind can work until somebody acts
)

// Entry is one row of the catalogue.
type Entry struct {
	Code       Code          `json:"code"`
	Name       string        `json:"name"`
	Subsystem  string        `json:"subsystem"`
	Severity   Severity      `json:"severity"`
	Transient  bool          `json:"transient"`
	Summary    string        `json:"summary"`
	Causes     []string      `json:"causes,omitempty"`
	Recovery   []string      `json:"recovery,omitempty"`
	HTTPStatus int           `json:"http_status"`
	ExitCode   int           `json:"exit_code"`
	Errno      syscall.Errno `json:"errno"` // closest Linux errno, 0 for success
}

// String is "NAME (CODE)", the form used in logs and on the command line.
func (e Entry) String() string { return e.Name + " (" + e.Code.String() + ")" }

func (c Code) String() string { return strconv.Itoa(int(c)) }

// Error makes a bare Code usable as an error and as an errors.Is target.
func (c Code) Error() string {
	e := entryOf(c)
	return e.String() + ": " + e.Summary
}

// Subsystem names.
const (
	subSuccess    = "success"
	subHypervisor = "hypervisor"
	subPQC        = "pqc"
	subQUAC100    = "quac100"
	subMigration  = "migration"
	subStorage    = "storage"
	subNetwork    = "network"
)

type index struct {
	all    []Entry
	byCode map[Code]int
	byName map[string]int
}

var catalogue = sync.OnceValue(func() index {
	var x index
	for _, part := range []struct {
		subsystem string
		rows      []Entry
	}{
		{subSuccess, successRows},
		{subHypervisor, coreRows},
		{subHypervisor, vmRows},
		{subHypervisor, cpuRows},
		{subHypervisor, memoryRows},
		{subPQC, pqcRows},
		{subQUAC100, quac100Rows},
		{subMigration, migrationRows},
		{subStorage, storageRows},
		{subNetwork, networkRows},
	} {
		for _, row := range part.rows {
			row.Subsystem = part.subsystem
			x.all = append(x.all, row)
		}
	}
	x.byCode = make(map[Code]int, len(x.all))
	x.byName = make(map[string]int, len(x.all))
	for i, e := range x.all {
		x.byCode[e.Code] = i
		x.byName[e.Name] = i
	}
	return x
})

// All returns every entry: success first, then by falling number.
func All() []Entry { return slices.Clone(catalogue().all) }

// Lookup finds the entry of a code.
func Lookup(c Code) (Entry, bool) {
	x := catalogue()
	i, ok := x.byCode[c]
	if !ok {
		return Entry{}, false
	}
	return x.all[i], true
}

// LookupName finds an entry by its symbolic name, whatever its case.
func LookupName(name string) (Entry, bool) {
	x := catalogue()
	i, ok := x.byName[strings.ToUpper(strings.TrimSpace(name))]
	if !ok {
		return Entry{}, false
	}
	return x.all[i], true
}

// entryOf is Lookup with the row of Generic for a number outside the catalogue,
// which can only come from a newer peer.
func entryOf(c Code) Entry {
	e, ok := Lookup(c)
	if !ok {
		e, _ = Lookup(Generic)
		e.Code, e.Name = c, "QV_ERR_UNKNOWN"
	}
	return e
}
