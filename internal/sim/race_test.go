//go:build race

package sim_test

// The race detector makes a run ten times slower. One goroutine at a time has
// work to do here, so it finds little in many seeds.
func init() { slower = 20 }
