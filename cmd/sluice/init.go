package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/schema"
)

func (p *program) init() *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Write a config with comments", Args: p.noArgs(),
		Long: "Writes an example config with comments to --config, else $SLUICE_CONFIG, else\n./sluice.yaml. A file that is there already is never overwritten.",
		Example: `  sluice init
  sluice init -c shop.yaml`,
		RunE: func(*cobra.Command, []string) error { return p.runInit() },
	}
}

func (p *program) runInit() error {
	file, _ := p.configFile()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and stays as it is; name another with --config, or see what it promises: sluice check -c %s", file, file)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(schema.Example())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]string{"config": file})
	}
	flag := ""
	if p.config != "" {
		flag = " -c " + file
	}
	p.say("wrote %s\nnext: edit it, then  sluice check%s  and  sluice serve%s", file, flag, flag)
	return nil
}
