package client

import (
	"context"

	"sluice.dev/sluice"
)

// WriteChunk sends lines of NDJSON as one chunk under a number of a producer,
// for programs that keep their own numbers, as `sluice load` does in a file. A
// chunk is at most sluice.ChunkLinesMax lines and sluice.ChunkBytesMax bytes.
// The same number with the same bytes counts once, also from another process;
// id.Lowest is the lowest number that may ever be sent again.
func (c *Client) WriteChunk(ctx context.Context, id sluice.Identity, lines []byte) (Accepted, error) {
	a, err := c.writeChunk(ctx, id.Producer, id.Chunk, id.Lowest, lines)
	return Accepted{Receipt: a.receipt, Accepted: a.accepted, Refused: a.refused, Outcomes: a.refusals, Duplicate: a.duplicate}, err
}
