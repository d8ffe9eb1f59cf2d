package redact

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

const (
	token    = "qv_Qw8yj-T-3S78YLhTix4_YbMMnvBMaaaabbbbccccddd"
	hash     = "e3f32431a8d744aee3f32431a8d744aee3f32431a8d744aee3f32431a8d744ae"
	recover8 = "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv"
	body     = "MC4CAQAwBQYDK2VwBCIEIEu9\nhZ0yT2lq+/AbCdEf0123456789AAAAAA==\n"
	pem      = "-----BEGIN PRIVATE KEY-----\n" + body + "-----END PRIVATE KEY-----"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "VM web is RUNNING: key=abc pid=12 12:30", ""},
		{"token", "quantavirt: token " + token + "\nnext", "quantavirt: token [redacted]\nnext"},
		{"token in JSON", `{"a":"` + token + `","b":1}`, `{"a":"[redacted]","b":1}`},
		{"token cut off", token[:25], "[redacted]"},
		{"no token", "qv_2+1.conf and qv_strerror(int)", ""},
		{"token's hash", "a quantavirt.token-hash=sha256:" + hash + " b", "a quantavirt.token-hash=[redacted] b"},
		{"some hash", "trusts sha256:" + hash + ".", "trusts sha256:[redacted]."},
		{"upper case", "SHA256:" + strings.ToUpper(hash), "SHA256:[redacted]"},
		{"public hash", "ca=sha256:" + hash + " authority=sha256:" + hash, ""},
		{"hash of a file", "sha256 " + hash, ""},
		{"short hash", "sha256:e3f32431a8d744ae…", ""},
		{"PEM", "a\n" + pem + "\nb", "a\n[redacted]\nb"},
		{"PEM of a kind", strings.ReplaceAll(pem, "PRIVATE", "ENCRYPTED PRIVATE"), "[redacted]"},
		{"PEM in JSON", `{"k":"` + strings.ReplaceAll(pem, "\n", `\n`) + `"}`, `{"k":"[redacted]"}`},
		{"PEM in a log", "<6> " + strings.ReplaceAll(pem, "\n", "\n<6> ") + "\n<6> b", "<6> [redacted]\n<6> b"},
		{"two PEMs", pem + "\n--\n" + pem, "[redacted]\n--\n[redacted]"},
		{"PEM without end", "a " + pem[:60] + " b\nc", "a [redacted]\nc"},
		{"PEM without beginning", "a: " + body + "-----END PRIVATE KEY----- b", "a: [redacted] b"},
		{"PEM twice begun", pem[:40] + " x " + pem[:40] + " x\n" + pem, "[redacted][redacted]\n[redacted]"},
		{"certificate", strings.ReplaceAll(pem, "PRIVATE KEY", "CERTIFICATE"), ""},
		{"recovery key", "it is " + recover8 + ", keep it", "it is [redacted], keep it"},
		{"UUID", "cbdefghi-0001-4000-8000-000000000000", ""},
		{"assignment", "a passphrase=correct,horse&x b", "a passphrase=[redacted] b"},
		{"quoted", `password="correct \"horse\" x" b`, `password=[redacted] b`},
		{"quoted, not ended", "password='correct horse\nb", "password=[redacted]\nb"},
		{"spaced", "secret = x b", "secret = [redacted] b"},
		{"JSON", `{"Passphrase": "correct horse", "b": 1}`, `{"Passphrase": [redacted], "b": 1}`},
		{"JSON in JSON", `"{\"user_data\":\"a\\\"b c\",\"b\":1}"`, `"{\"user_data\":[redacted],\"b\":1}"`},
		{"JSON with parts", `{"tokens": [{"hash": "x"}]` + "\nb", `{"tokens": [redacted]` + "\nb"},
		{"YAML", "password: correct", "password: [redacted]"},
		{"header", "Authorization: Basic dXNlcg== x\nb", "Authorization: [redacted]\nb"},
		{"bearer", "sent Bearer abc.def b", "sent Bearer [redacted] b"},
		{"kernel option", "root=/dev/vda systemd.set_credential=a:b rd.luks.name=x ro", "root=/dev/vda systemd.set_credential=[redacted] rd.luks.name=x ro"},
		{"URL", "GET https://user:pass@host/x", "GET https://[redacted]@host/x"},
		{"URL with a token", "GET https://abc@host/x?token=abc b", "GET https://[redacted]@host/x?token=[redacted] b"},
		{"URL without", "GET https://host/x@y", ""},
		{"no value", "passphrase= b", "passphrase= [redacted]"},
		{"done already", "password=[redacted] https://[redacted]@h Bearer [redacted]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, some := c.want, true
			if want == "" {
				want, some = c.in, false
			}
			got, n := Text([]byte(c.in))
			if string(got) != want || (n > 0) != some {
				t.Errorf("%d secrets:\n%s\nwant:\n%s", n, got, want)
			}
		})
	}
}

// A text takes time by its length, whatever it is made of: 4 MiB of the first took minutes once.
func TestLong(t *testing.T) {
	for _, piece := range []string{"-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "token=", "a=", "://a", `token="`, "sha256:ab", "cbdefghi-"} {
		Text([]byte(strings.Repeat(piece, 4<<20/len(piece))))
	}
}

func TestSecret(t *testing.T) {
	for _, name := range []string{"passphrase", "X-Passphrase", "token_hash", "quantavirt.token-hash", "recoveryKey", "recovery_key", "user-data",
		"cloud_init", "private_key", "wifi.psk", "pwd", "db.pass", "API-Key", "TOKENS"} {
		if !Secret(name) {
			t.Errorf("%s is none", name)
		}
	}
	for _, name := range []string{"", "key", "public_key", "keymap", "hostname", "bypass", "compass", "identity", "sealed_for", "hash", "sha256"} {
		if Secret(name) {
			t.Errorf("%s is one", name)
		}
	}
}

func TestJSON(t *testing.T) {
	in := map[string]any{
		"cmdline":      "console=ttyS0 quantavirt.token-hash=sha256:" + hash + " ro",
		"options":      map[string]string{"token-hash": "sha256:" + hash, "ip": "dhcp"},
		"tokens":       []any{map[string]string{"hash": "sha256:" + hash}},
		"passphrase":   "",
		"recovery_key": nil,
		"fingerprint":  "sha256:" + hash,
		"place":        "http://user:pass@10.0.0.1/x?a=<b>",
		"deep":         []any{[]any{map[string]any{"user_data": "#cloud-config", "n": json.Number("12345678901234567890")}}},
		token:          true,
	}
	want := `{
  "[redacted]": true,
  "cmdline": "console=ttyS0 quantavirt.token-hash=[redacted] ro",
  "deep": [
    [
      {
        "n": 12345678901234567890,
        "user_data": "[redacted]"
      }
    ]
  ],
  "fingerprint": "sha256:` + hash + `",
  "options": {
    "ip": "dhcp",
    "token-hash": "[redacted]"
  },
  "passphrase": "",
  "place": "http://[redacted]@10.0.0.1/x?a=<b>",
  "recovery_key": null,
  "tokens": "[redacted]"
}
`
	got, n, err := JSON(in)
	if err != nil || string(got) != want || n != 6 {
		t.Errorf("%v, %d secrets:\n%s\nwant:\n%s", err, n, got, want)
	}
	if _, _, err := JSON(func() {}); err == nil {
		t.Error("a function is no JSON")
	}
}

// Whatever stands around a secret, it is taken out.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", " ", `"`, `\"`, "token=", `{"password":"`, "-----BEGIN PRIVATE KEY-----\n", "https://u:", "sha256:", "qv_", "Bearer ", "ca=", "\n'"} {
		f.Add([]byte(s), []byte(s), byte(len(s)))
	}
	secrets := []string{token, pem, recover8, "passphrase=Tr0ub4dor&3", `"passphrase":"Tr0ub4dor&3"`, "token-hash=sha256:" + hash, "http://Tr0ub4dor&3@host/"}
	cores := []string{token[3:40], "hZ0yT2lq+/AbCdEf0123456789", recover8[9:60], "Tr0ub4dor&3", "Tr0ub4dor&3", hash, "Tr0ub4dor&3"}
	f.Fuzz(func(t *testing.T, before, after []byte, which byte) {
		i := int(which) % len(secrets)
		if bytes.Contains(before, []byte(cores[i])) || bytes.Contains(after, []byte(cores[i])) {
			return
		}
		in := bytes.Join([][]byte{before, []byte(secrets[i]), after}, []byte(" "))
		got, n := Text(in)
		if bytes.Contains(got, []byte(cores[i])) || n == 0 {
			t.Errorf("%q\nbecame %q", in, got)
		}
		if again, _ := Text(got); !bytes.Equal(again, got) {
			t.Errorf("%q\nbecame %q\nand then %q", in, got, again)
		}
		for line := range strings.Lines(string(before)) {
			raw, _, err := JSON(map[string]any{"a": line + secrets[i]})
			if err != nil || i != 1 && bytes.Contains(raw, []byte(cores[i])) {
				t.Errorf("%q in JSON: %v %s", line, err, raw)
			}
		}
	})
}

func BenchmarkText(b *testing.B) {
	line := "[2026-01-15 14:32:01 UTC] [ERROR] storage: QV_STR_ERR_LOCK (-402): /var/lib/quantavirt/disks/web.qcow2 locked by VM 'web-prod' pid=4821\n"
	p := []byte(strings.Repeat(line, 8192))
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		Text(p)
	}
}
