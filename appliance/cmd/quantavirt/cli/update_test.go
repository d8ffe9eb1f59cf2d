package cli

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

const updateTask = `{"id":"t1","kind":"system.update","target":"system","state":"STATE","progress":{"done":0,"total":0,"phase":"reboot"},"created_at":"2026-01-15T14:32:01Z"}`

func TestUpdate(t *testing.T) {
	var got []string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+r.URL.Query().Get("check")+" "+r.Header.Get("Content-Type")+" "+strings.TrimSpace(string(body)))
		answerJSON(w, 202, strings.Replace(updateTask, "STATE", "succeeded", 1))
	}))
	for _, c := range []struct {
		args      []string
		sent, out string
	}{
		{[]string{"system", "update", tempFile(t, []byte("QVU1"))}, "POST /api/v1/system/update false application/octet-stream QVU1", "the node goes down"},
		{[]string{"system", "update", "--check", "https://x/y.qvu"}, `POST /api/v1/system/update true application/json {"url":"https://x/y.qvu"}`, "verified"},
		{[]string{"system", "update", "--no-reboot", "http://x/y.qvu"}, `POST /api/v1/system/update false application/json {"url":"http://x/y.qvu"}`, "the next reboot tries it"},
	} {
		got = nil
		r := runIn(t, env, nil, append([]string{"-q"}, c.args...)...)
		if r.exit != 0 || len(got) != 1 || got[0] != c.sent || !strings.Contains(r.out, c.out) {
			t.Errorf("%v: %+v, sent %q", c.args, r, got)
		}
	}
}

// The node is gone in the phase in which it goes down: that is how it should be.
func TestUpdateEndsWithTheNode(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			panic(http.ErrAbortHandler)
		}
		answerJSON(w, 202, strings.Replace(updateTask, "STATE", "running", 1))
	}))
	if r := runIn(t, env, nil, "-q", "system", "update", "http://x/y.qvu"); r.exit != 0 {
		t.Errorf("%+v", r)
	}
	for phase, want := range map[string]bool{"reboot": true, "start": true, "write": false, "arm": false, "": false} {
		if goesDown(phase) != want {
			t.Errorf("phase %q", phase)
		}
	}
}

// --until-blessed ends when the new system is blessed, or the one before is back.
func TestUpdateUntilBlessed(t *testing.T) {
	slots := func(items, failures string) string {
		return `{"medium":"uefi-disk","counter":2,"last_bundle":{"version":"9.1","counter":2,"notes":"","created_at":"2026-01-15T14:32:01Z","verified_at":"2026-01-15T14:32:01Z"},` +
			`"items":[` + items + `],"failures":[` + failures + `]}`
	}
	slot := func(seq, version, state, running string) string {
		return `{"slot":"` + seq + `","version":"` + version + `","build":"virtual","counter":2,"sha256":"","state":"` + state + `","reason":"its kernel panicked","running":` + running + `,"next":true,"whole":true}`
	}
	old := slot("00000001", "9.0", "good", "true")
	for name, c := range map[string]struct {
		answers []string // of the slots, once the node is up again
		exit    int
		out     string
	}{
		"blessed":          {[]string{slots(slot("00000002", "9.1", "try", "true")+","+slot("00000001", "9.0", "good", "false"), ""), slots(slot("00000002", "9.1", "good", "true"), "")}, 0, "keeps it"},
		"the one before":   {[]string{slots(slot("00000002", "9.1", "failed", "false")+","+old, "")}, 5, "its kernel panicked"},
		"its slot is gone": {[]string{slots(old, `{"version":"9.1","sha256":"","reason":"hung","time":"2026-01-15T14:32:01Z"}`)}, 5, "hung"},
		"no slots":         {[]string{slots("", "")}, 0, "keeps it"},
	} {
		boots, asked := 0, 0
		env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPost:
				boots++
				answerJSON(w, 202, strings.Replace(updateTask, "STATE", "succeeded", 1))
			case strings.HasSuffix(r.URL.Path, "/info"):
				answerJSON(w, 200, fmt.Sprintf(`{"boot_id":"boot-%d"}`, boots))
			default:
				answerJSON(w, 200, c.answers[min(asked, len(c.answers)-1)])
				asked++
			}
		}))
		r := runIn(t, env, nil, "-q", "system", "update", "--until-blessed", "http://x/y.qvu")
		if r.exit != c.exit || !strings.Contains(r.out+r.err, c.out) || asked != len(c.answers) {
			t.Errorf("%s: asked %d times: %+v", name, asked, r)
		}
	}
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("%s %s", r.Method, r.URL) }))
	if r := runIn(t, env, nil, "system", "update", "--until-blessed", "--check", "http://x/y.qvu"); r.exit != 2 {
		t.Errorf("%+v", r)
	}
}

func TestUpdateRefused(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail(w, qverr.New(qverr.PQCVerify, "it is signed by a stranger"))
	}))
	r := runIn(t, env, nil, "system", "update", tempFile(t, make([]byte, 64<<20)))
	if r.exit != 10 || !strings.HasPrefix(r.err, "Error: PQC_ERR_VERIFY (-105): it is signed by a stranger") {
		t.Errorf("%+v", r)
	}
}

func TestSlots(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, 200, `{"medium":"uefi-disk","counter":2,"items":[
		{"slot":"00000003","version":"9.2","build":"virtual","counter":2,"sha256":"","state":"failed","reason":"its kernel panicked","panic":"oops\u001b[2J\nend\n","running":false,"next":false,"whole":true},
		{"slot":"00000002","version":"9.1","build":"virtual","counter":2,"sha256":"","state":"try","tries_left":1,"running":true,"next":true,"whole":true}],
		"failures":[{"version":"9.2","sha256":"","reason":"its kernel panicked","time":"2026-01-15T14:32:01Z"}]}`)
	}))
	r := runIn(t, env, nil, "system", "slots")
	want := `SLOT      VERSION  COUNTER  STATE        NOW  NEXT  WRITTEN  REASON
00000003  9.2      2        failed       -    -     -        its kernel panicked
00000002  9.1      2        try, 1 left  *    *     -        -

Last words of the kernel in slot 00000003:
  oops [2J
  end

FAILED VERSION  WHEN                 REASON
9.2             2026-01-15 14:32:01  its kernel panicked
`
	if r.exit != 0 || r.out != want {
		t.Errorf("exit %d, %s\n%s", r.exit, r.err, r.out)
	}
}
