package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/node"
)

func (p *program) version() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: p.noArgs(), Example: "  sluice version\n  sluice version --json",
		RunE: func(*cobra.Command, []string) error {
			if p.json {
				return p.printJSON(map[string]string{"version": node.Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			p.say("sluice %s (%s, %s/%s)", node.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		}}
}
