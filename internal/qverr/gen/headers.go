package main

import (
	"fmt"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

type header struct {
	file       string
	subsystems []string
	list       string // name of the macro that lists the rows
	title      string
}

var headers = []header{
	{"error.h", []string{"success", "hypervisor"}, "QV_CORE_ERROR_LIST_", "hypervisor core, and the functions for all codes"},
	{"pqc_error.h", []string{"pqc"}, "QV_PQC_ERROR_LIST_", "post-quantum cryptography"},
	{"quac100_error.h", []string{"quac100"}, "QV_QUAC100_ERROR_LIST_", "QUAC 100 driver and response codes of the card"},
	{"migration_error.h", []string{"migration"}, "QV_MIGRATION_ERROR_LIST_", "migration"},
	{"storage_error.h", []string{"storage"}, "QV_STORAGE_ERROR_LIST_", "storage"},
	{"network_error.h", []string{"network"}, "QV_NETWORK_ERROR_LIST_", "network"},
}

func (h header) rows() []qverr.Entry {
	var rows []qverr.Entry
	for _, e := range qverr.All() {
		for _, s := range h.subsystems {
			if e.Subsystem == s {
				rows = append(rows, e)
			}
		}
	}
	return rows
}

func (h header) render() string {
	var b strings.Builder
	guard := "QUANTAVIRT_" + strings.ToUpper(strings.TrimSuffix(h.file, ".h")) + "_H"
	fmt.Fprintf(&b, "/* SPDX-License-Identifier: Apache-2.0\n * QuantaVirt error codes: %s.\n", h.title)
	b.WriteString(" * Generated from the error catalogue (go generate ./internal/qverr). Do not edit.\n */\n")
	fmt.Fprintf(&b, "#ifndef %s\n#define %s\n\n", guard, guard)
	rows := h.rows()
	for _, e := range rows {
		value := "(" + e.Code.String() + ")"
		if e.Code >= 0 {
			value = e.Code.String()
		}
		fmt.Fprintf(&b, "#define %-26s %6s /* %s */\n", e.Name, value, e.Summary)
	}
	b.WriteString("\n/* X(code, name, subsystem, transient, errno of Linux, text) */\n")
	fmt.Fprintf(&b, "#define %s(X)", h.list)
	for _, e := range rows {
		fmt.Fprintf(&b, " \\\n  X(%s, %q, %q, %d, %d, %s)", e.Name, e.Name, e.Subsystem, b2i(e.Transient), int(e.Errno), cString(e.Summary))
	}
	b.WriteString("\n\n")
	switch h.file {
	case "error.h":
		b.WriteString(functions())
	case "quac100_error.h":
		b.WriteString(responses())
		b.WriteString("#include \"error.h\" /* the functions for all codes */\n")
	default:
		b.WriteString("#include \"error.h\" /* the functions for all codes */\n")
	}
	fmt.Fprintf(&b, "\n#endif /* %s */\n", guard)
	return b.String()
}

func functions() string {
	var b strings.Builder
	for _, h := range headers[1:] {
		fmt.Fprintf(&b, "#include %q\n", h.file)
	}
	b.WriteString("\n#define QV_ERROR_LIST_(X)")
	for _, h := range headers {
		fmt.Fprintf(&b, " \\\n  %s(X)", h.list)
	}
	b.WriteString(functionText)
	return b.String()
}

const functionText = `

#ifdef __cplusplus
extern "C" {
#endif

/* Human-readable description of a code, never NULL. */
static inline const char *qv_strerror(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return text_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return "Unknown error";
    }
}

/* Symbolic name of a code, "QV_ERR_UNKNOWN" for a number without one. */
static inline const char *qv_strerror_name(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return name_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return "QV_ERR_UNKNOWN";
    }
}

/* Subsystem that a code belongs to: success, hypervisor, pqc, quac100,
 * migration, storage or network; "unknown" for a number outside all ranges. */
static inline const char *qv_strerror_subsystem(int code)
{
    if (code == 0) return "success";
    if (code < 0 && code >= -99) return "hypervisor";
    if (code <= -100 && code >= -199) return "pqc";
    if (code <= -200 && code >= -299) return "quac100";
    if (code <= -300 && code >= -399) return "migration";
    if (code <= -400 && code >= -499) return "storage";
    if (code <= -500 && code >= -599) return "network";
    return "unknown";
}

/* 1 when repeating the operation may help, else 0. */
static inline int qv_error_is_transient(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return transient_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return 0;
    }
}

/* Closest errno of Linux (a positive number), 0 for success, 5 (EIO) for a
 * number that is no code. */
static inline int qv_error_to_errno(int code)
{
    switch (code) {
#define QV_X_(code_, name_, subsystem_, transient_, errno_, text_) case code_: return errno_;
    QV_ERROR_LIST_(QV_X_)
#undef QV_X_
    default: return 5;
    }
}

/* Code of a response code of the QUAC 100. */
static inline int qv_error_from_quac100_response(unsigned response)
{
    switch (response) {
#define QV_X_(response_, code_) case response_: return code_;
    QUAC100_RESPONSE_LIST_(QV_X_)
#undef QV_X_
    default: return QV_ERR_GENERIC;
    }
}

#ifdef __cplusplus
}
#endif
`

func responses() string {
	var b strings.Builder
	b.WriteString("/* Status codes of the card's response descriptors. */\n")
	for _, r := range qverr.Responses() {
		fmt.Fprintf(&b, "#define %-30s 0x%04X /* %s */\n", r.Name, uint16(r.Response), r.Summary)
	}
	b.WriteString("\n/* X(response, code) */\n#define QUAC100_RESPONSE_LIST_(X)")
	for _, r := range qverr.Responses() {
		e, _ := qverr.Lookup(r.Code)
		fmt.Fprintf(&b, " \\\n  X(%s, %s)", r.Name, e.Name)
	}
	b.WriteString("\n\n")
	return b.String()
}

// cString quotes text as a C string; bytes beyond ASCII are written in octal,
// which unlike hexadecimal ends after three digits.
func cString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c >= 0x7f:
			b.WriteString(`\` + strconv.FormatInt(int64(c)|0o1000, 8)[1:])
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func b2i(v bool) int {
	if v {
		return 1
	}
	return 0
}
