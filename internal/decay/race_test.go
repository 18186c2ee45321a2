//go:build race

package decay_test

const raceDetector = true
