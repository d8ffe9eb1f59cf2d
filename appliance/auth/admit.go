package auth

import (
	"context"
	"net"
	"net/http"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

type connKey struct{}

// ConnContext is for http.Server: it lets Admit see who is at the other end.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// Admit finds out who sends a request, by the uid on a UNIX socket and by the token
// elsewhere, and whether they may: a viewer only reads. QV_ERR_AUTH, QV_ERR_PERM.
func (t *Tokens) Admit(r *http.Request) (Principal, error) {
	var who Principal
	var err error
	if conn, ok := r.Context().Value(connKey{}).(*net.UnixConn); ok {
		who, err = Peer(conn)
	} else {
		who, err = t.Check(r.Header.Get("Authorization"))
	}
	if err != nil {
		return who, err
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if who.Role != spec.TokenRoleAdmin && (!reads || r.Header.Get("Upgrade") != "") {
		return who, qverr.New(qverr.Perm, "the role %s may only read", who.Role)
	}
	return who, nil
}
