package postgres

import "math"

// OnlyArrays and OnlyCopy move the border, so that the suite and the benchmark
// see each way alone.
func (s *Shard) OnlyArrays() { s.copyStagedMin, s.copyEventsMin = math.MaxInt, math.MaxInt }
func (s *Shard) OnlyCopy()   { s.copyStagedMin, s.copyEventsMin = 1, 1 }
