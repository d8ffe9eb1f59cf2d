package cli

import (
	"bytes"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/internal/qverr"
)

// apiCmd exists because most curls cannot reach a node: its TLS is
// post-quantum only.
func (a *app) apiCmd() *cobra.Command {
	var data, contentType string
	cmd := &cobra.Command{
		Use: "api METHOD PATH", Short: "Make a raw API call", Args: exactArgs(2),
		Long: "Make a raw API call and print the answer's body as it comes. PATH is below /api/v1, or whole.\n" +
			"--data is the body: text, @FILE or @- for stdin.",
		Example: "  quantavirt api GET /vms\n  quantavirt api POST /vms --data @web.json\n  quantavirt api GET /healthz",
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := a.rawBody(data)
			if err != nil {
				return err
			}
			return a.rawCall(cmd, strings.ToUpper(args[0]), args[1], contentType, body)
		},
	}
	cmd.Flags().StringVarP(&data, "data", "d", "", "body: text, @FILE or @- for stdin")
	cmd.Flags().StringVar(&contentType, "content-type", "application/json", "type of the body")
	return cmd
}

func (a *app) rawBody(data string) ([]byte, error) {
	if file, ok := strings.CutPrefix(data, "@"); ok {
		return a.readInput(file)
	}
	return []byte(data), nil
}

func (a *app) rawCall(cmd *cobra.Command, method, path, contentType string, body []byte) error {
	c, err := a.node()
	if err != nil {
		return err
	}
	path = "/" + strings.TrimPrefix(path, "/")
	if !strings.HasPrefix(path, "/api/") && path != "/healthz" && path != "/readyz" {
		path = "/api/v1" + path
	}
	r, err := http.NewRequestWithContext(cmd.Context(), method, c.target.base+path, bytes.NewReader(body))
	if err != nil {
		return qverr.New(qverr.Inval, "%s %s: %w", method, path, err)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", contentType)
	}
	if err := c.target.authorize(cmd.Context(), r); err != nil {
		return err
	}
	resp, err := c.Client.Client.Do(r)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	// The body of an error is output as well, and then makes the exit code.
	var failed bytes.Buffer
	out := a.Out
	if resp.StatusCode >= 300 {
		out = io.MultiWriter(a.Out, &failed)
	}
	n, err := io.Copy(out, resp.Body)
	if err != nil {
		return c.unreachable(err)
	}
	if n > 0 && terminal(a.Out) {
		io.WriteString(a.Out, "\n")
	}
	resp.Body = io.NopCloser(&failed)
	return c.check(resp, nil)
}
