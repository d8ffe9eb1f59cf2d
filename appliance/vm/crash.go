package vm

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

func (s *Service) crashPath(name string) string {
	return filepath.Join(s.consoleDir(name), "crash.json")
}

// keepCrash writes the report of a VM that crashed, with the end of what it printed, in
// place of the one before; it needs the lock. A volume that cannot take it must not
// keep the VM from its next state.
func (s *Service) keepCrash(m *machine, report vmm.ExitReport) {
	name := m.rec.Config.Name
	c := report.Crash
	if c == nil { // the process died without last words
		c = &vmm.CrashReport{Time: report.Time, Reason: report.Reason, Code: report.Code, Message: report.Message}
	}
	c.Console = map[string]string{}
	for _, console := range []string{vmm.ConsoleVirtio, vmm.ConsoleSerial} {
		if text, err := s.readConsole(name, console); err == nil && len(text) > 0 {
			c.Console[console] = lastLines(text)
		}
	}
	c.Log = s.endOfLog(name)
	if err := writeCrash(s.crashPath(name), c); err != nil {
		s.Log.Error("keep the crash report of VM "+name, "err", err)
		return
	}
	m.rec.CrashedAt = &c.Time
}

// lastLines is the end of text, from the beginning of a line if there is one, as valid
// UTF-8: a guest prints what it likes.
func lastLines(text []byte) string {
	out := string(text)
	if len(out) > vmm.CrashConsole {
		out = out[len(out)-vmm.CrashConsole:]
		if _, rest, ok := strings.Cut(out, "\n"); ok {
			out = rest
		}
	}
	return strings.ToValidUTF8(out, "?")
}

// endOfLog is the end of the log of the VM process; "" when there is none.
func (s *Service) endOfLog(name string) string {
	f, err := os.Open(filepath.Join(s.consoleDir(name), processLog))
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-vmm.CrashConsole), vmm.CrashConsole))
	if err != nil {
		return ""
	}
	return lastLines(text)
}

func writeCrash(path string, c *vmm.CrashReport) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return qverr.New(qverr.Generic, "encode: %w", err)
	}
	fresh := path + ".new"
	err = os.WriteFile(fresh, append(data, '\n'), 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "%w", err)
	}
	return nil
}

// Crash is the report of a VM's last crash, also after it was started again.
// QV_ERR_NOENT: it never crashed.
func (s *Service) Crash(name string) (vmm.CrashReport, error) {
	var c vmm.CrashReport
	s.mu.Lock()
	_, err := s.find(name)
	s.mu.Unlock()
	if err != nil {
		return c, err
	}
	data, err := os.ReadFile(s.crashPath(name))
	if errors.Is(err, os.ErrNotExist) {
		return c, qverr.New(qverr.NoEnt, "VM %s has not crashed", name)
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, qverr.New(qverr.IO, "crash report of VM %s: %w", name, err)
	}
	return c, nil
}
