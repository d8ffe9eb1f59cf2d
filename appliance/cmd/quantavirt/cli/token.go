package cli

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) tokenCmd() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List tokens; their secrets are not kept", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.TokenList](a, func(c *client) (*http.Response, error) { return c.ListTokens(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "ID", "ROLE", "DESCRIPTION", "ORIGIN", "CREATED", "EXPIRES", "LAST USED")
				for _, t := range ans.value.Items {
					row(w, t.ID, t.Role, t.Description, t.Origin, when(t.CreatedAt), whenPtr(t.ExpiresAt), whenPtr(t.LastUsedAt))
				}
			})
		},
	}
	remove := &cobra.Command{
		Use: "delete ID", Aliases: []string{"revoke"}, Short: "Revoke a token", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := call[struct{}](a, func(c *client) (*http.Response, error) { return c.RevokeToken(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.show(map[string]string{"deleted": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "token %s: revoked\n", args[0]) })
		},
	}
	return group("token", "API tokens", a.tokenCreateCmd(), list, remove)
}

func (a *app) tokenCreateCmd() *cobra.Command {
	var create spec.TokenCreate
	var role string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token; its secret is shown once", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			create.Role = spec.TokenRole(role)
			create.ExpiresIn = int((expires + time.Second - 1) / time.Second)
			ans, err := call[spec.TokenSecret](a, func(c *client) (*http.Response, error) { return c.CreateToken(cmd.Context(), create) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "Token", ans.value.Token)
				row(w, "ID", ans.value.Info.ID)
				row(w, "Role", ans.value.Info.Role)
				row(w, "Expires", first(whenPtr(ans.value.Info.ExpiresAt), "never"))
				fmt.Fprintln(w, "The node keeps only a hash: note the token now.")
			})
		},
	}
	cmd.Flags().StringVar(&create.Description, "description", "", "what it is for")
	cmd.Flags().StringVar(&role, "role", "admin", "admin or viewer")
	cmd.Flags().DurationVar(&expires, "expires-in", 0, "life time, for example 720h (never expires when absent)")
	return cmd
}
