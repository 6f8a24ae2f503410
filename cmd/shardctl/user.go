package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) userCommand() *cobra.Command {
	return a.group("user", "PostgreSQL roles that clients log in as",
		a.userAdd(), a.userList(), a.userPasswd(), a.userRemove())
}

func (a *app) userAdd() *cobra.Command {
	var (
		n         client.NewUser
		fromStdin bool
	)
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a user on every shard; its password is made up unless given on standard input",
		Args:  a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			n.Name = args[0]
			if fromStdin {
				if n.Password, err = readPassword(a.stdin); err != nil {
					return err
				}
			}
			u, err := m.AddUser(c.Context(), n)
			if err != nil {
				return err
			}
			return a.show(u, func(t *table) { drawUser(t, u) })
		},
	}
	f := c.Flags()
	f.StringSliceVar(&n.Roles, "role", nil, "what the user may do with the APIs: admin, operator, writer, reader, viewer (`ROLE`, several by commas)")
	f.StringSliceVar(&n.Keyspaces, "keyspaces", nil, "limit the user to these `KEYSPACES`")
	f.BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return c
}

func drawUser(t *table, u client.User) {
	t.row("user", u.Name)
	t.row("roles", orDash(strings.Join(u.Roles, ", ")))
	t.row("keyspaces", first(strings.Join(u.Keyspaces, ", "), "all"))
	if u.Password != "" {
		t.row("password", u.Password)
	}
	if len(u.Pending) > 0 {
		t.row("pending on", strings.Join(u.Pending, ", "))
	}
}

func (a *app) userList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All users", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			users, err := m.Users(c.Context())
			if err != nil {
				return err
			}
			return a.show(orEmpty(users), func(t *table) {
				t.head("USER", "ROLES", "KEYSPACES", "LOGIN")
				for _, u := range users {
					t.row(u.Name, orDash(strings.Join(u.Roles, ",")), first(strings.Join(u.Keyspaces, ","), "all"), u.CanLogin)
				}
			})
		},
	}
}

func (a *app) userPasswd() *cobra.Command {
	var generate bool
	c := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Change a user's password: asked for, read from standard input, or made up",
		Args:  a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			password := ""
			if !generate {
				if password, err = a.askPassword(); err != nil {
					return err
				}
			}
			u, err := m.SetPassword(c.Context(), args[0], password)
			if err != nil {
				return err
			}
			return a.show(u, func(t *table) { drawUser(t, u) })
		},
	}
	c.Flags().BoolVar(&generate, "generate", false, "make a password up and print it")
	return c
}

func (a *app) askPassword() (string, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return readPassword(a.stdin)
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(a.stderr, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.stderr)
		return string(b), err
	}
	one, err := ask("New password: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	two, err := ask("Again: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if one != two {
		return "", errors.New("the two passwords differ")
	}
	if one == "" {
		return "", errors.New("an empty password was given")
	}
	return one, nil
}

// readPassword takes the first line.
func readPassword(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", misusef("standard input holds no password")
	}
	return line, nil
}

func (a *app) userRemove() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NAME", Short: "Drop a user on every shard", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Removing user %s", args[0]); err != nil {
				return err
			}
			if err := m.RemoveUser(c.Context(), args[0], 0); err != nil {
				return err
			}
			return a.done(false, "removed", "user", args[0])
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
