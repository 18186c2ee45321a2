package main

import (
	"context"
	"io"
)

const loadCommand = "load"

func loadMain(context.Context, io.Reader, io.Writer) error { return nil }
func sqliteApplyScenario(context.Context, *suite) error    { return nil }
func httpScenario(context.Context, *suite) error           { return nil }
func pgApplyScenario(context.Context, *suite) error        { return nil }
func pgPathScenario(context.Context, *suite) error         { return nil }
func growthScenario(context.Context, *suite) error         { return nil }
func postgresBin() (string, error)                         { return "", io.EOF }
