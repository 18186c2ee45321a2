// Command sluice is all of Sluice in one program: the server, and what one
// needs at the terminal to set it up, feed it, watch it and leave it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks; after it the signals have their own effect again,
	// so that the second ends the process at once.
	context.AfterFunc(ctx, stop)
	m := &Main{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.LookupEnv}
	os.Exit(m.Run(ctx, os.Args[1:]))
}

// Main is the program with all that it touches of its process, so that tests
// start the same one.
type Main struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Env    func(string) (string, bool)
}

// Run runs one command line and gives the exit code.
func (m *Main) Run(ctx context.Context, args []string) int {
	p := newProgram(m)
	root := p.root()
	root.SetArgs(args)
	root.SetIn(m.Stdin)
	root.SetOut(m.Stdout)
	root.SetErr(m.Stderr)
	return p.exit(ctx, p.unreachable(root.ExecuteContext(ctx)))
}
