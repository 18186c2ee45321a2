package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (p *program) resume() *cobra.Command {
	var store, shard string
	var acceptGap bool
	cmd := &cobra.Command{Use: "resume --store STORE [--shard SHARD]", Short: "Make stopped streams of a store go on", Args: p.noArgs(),
		Long: `Makes streams that stopped try again at once; by themselves they look again every
few seconds. With --accept-gap, streams whose history is missing go on without it:
a database that was restored from an old backup, or emptied. The gap is kept in
the catalog, and receipts of what is missing say "lost".`,
		Example: `  sluice status                                  # says what stopped, and why
  sluice resume --store main
  sluice resume --store main --shard a --accept-gap`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			if err := c.Resume(cmd.Context(), store, shard, acceptGap); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]any{"store": store, "shard": shard, "resumed": true})
			}
			p.say(fmt.Sprintf("streams of store %s try again; `sluice status` says whether they go on", store))
			return nil
		}}
	cmd.Flags().StringVar(&store, "store", "", "the store, as in the config")
	cmd.Flags().StringVar(&shard, "shard", "", "one shard of it; all when left out")
	cmd.Flags().BoolVar(&acceptGap, "accept-gap", false, "go on although history is missing")
	_ = cmd.MarkFlagRequired("store")
	return cmd
}
