package main

import (
	"bytes"
	"context"
	"sync"
	"testing"
)

// cancelling is an output that tells somebody what came.
type cancelling struct {
	mu sync.Mutex
	b  bytes.Buffer
	on func(string)
}

func (c *cancelling) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.b.Write(p)
	c.mu.Unlock()
	c.on(string(p))
	return len(p), nil
}

func (c *cancelling) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
