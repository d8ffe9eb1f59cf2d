package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

func TestNote(t *testing.T) {
	root := t.TempDir()
	if err := writeNote(root, "00000002", "why"); qverr.CodeOf(err) != qverr.IO {
		t.Errorf("a slot that is not there: %v", err)
	}
	dir := filepath.Join(root, slot.Folder, "00000002")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a long reason", "why"} {
		if err := writeNote(root, "00000002", text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, slot.NoteFile)); err != nil || string(got) != text+"\n" {
			t.Errorf("%q %v", got, err)
		}
	}
	if err := note("", "00000002", "why"); qverr.CodeOf(err) != qverr.NoEnt {
		t.Errorf("without a partition: %v", err)
	}
}

// A boot that is no trial, or no more, is not given up.
func TestOnlyTrialsAreGivenUp(t *testing.T) {
	n := newNode()
	n.giveUpTrial(qverr.New(qverr.Generic, "why"))
	n.boot.Trial = true
	n.Blessed()
	n.giveUpTrial(qverr.New(qverr.Generic, "why"))
	if n.isEnding() {
		t.Error("the node goes down")
	}
}

func TestLimit(t *testing.T) {
	root := t.TempDir()
	if l := limitOf(root, 2); l != trialLimit {
		t.Errorf("without slot.json: %s", l)
	}
	dir := filepath.Join(root, slot.Folder, "00000002")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[time.Duration]time.Duration{20 * time.Second: 20 * time.Second, 0: trialLimit, 2 * time.Hour: trialLimit} {
		data, err := slot.Info{Sequence: 2, State: slot.StateTry, Trial: &slot.Trial{Limit: limit}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, slot.InfoFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if l := limitOf(root, 2); l != want {
			t.Errorf("limit %s: %s", limit, l)
		}
	}
}
