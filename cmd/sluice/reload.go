package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
)

func (p *program) reload() *cobra.Command {
	return &cobra.Command{Use: "reload", Short: "Make the server read its config again", Args: p.noArgs(),
		Long: `Makes the server read its config again. Tables, groups and columns can be added
and limits changed. A config with faults, or a change that would make what is in
the journal unreadable, is refused with the reason, and the old one stays.`,
		Example: "  sluice check && sluice reload",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			switch err := c.Reload(cmd.Context()); {
			case sluice.CodeOf(err) == sluice.Invalid, sluice.CodeOf(err) == sluice.Conflict:
				return fmt.Errorf("the config is refused and the old one stays in force:\n%w", err)
			case err != nil:
				return err
			}
			if p.json {
				return p.printJSON(map[string]bool{"reloaded": true})
			}
			p.say("the config is in force")
			return nil
		}}
}
