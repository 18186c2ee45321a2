package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/api"
)

// Keys are data: each client sees those of its tables.
func TestHotKeysByTableRights(t *testing.T) {
	b := api.NewHTTPBackend(t, true)
	url := b.Serve(t, nil)
	for _, c := range []struct {
		token  string
		status int
		tables string
	}{
		{"web-token-0123456789abcdef", 200, "posts"},
		{"ops-token-0123456789abcdef", 200, "posts pages"},
		{"load-token-0123456789abcde", 403, ""},
		{"", 401, ""},
	} {
		status, text := getAs(t, url+"/v1/hot", c.token)
		var a struct {
			Hot []sluice.HotKey `json:"hot"`
		}
		if status == 200 {
			if err := json.Unmarshal([]byte(text), &a); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		var tables []string
		for _, k := range a.Hot {
			tables = append(tables, k.Table)
		}
		if got := strings.Join(tables, " "); status != c.status || got != c.tables {
			t.Errorf("%q: status %d, tables %q; want %d, %q", c.token, status, got, c.status, c.tables)
		}
	}
	b.Cold = true
	if _, text := getAs(t, url+"/v1/hot", "ops-token-0123456789abcdef"); strings.TrimSpace(text) != `{"hot":[]}` {
		t.Errorf("none: %s", text)
	}
}

func getAs(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestClientListsHotKeys(t *testing.T) {
	url := api.NewHTTPBackend(t, false).Serve(t, nil)
	keys, err := newClient(t, url, nil).Hot(t.Context())
	if err != nil || len(keys) != 2 || string(keys[0].Key) != "42" || keys[0].Share != .5 || keys[0].Rule != "folded" {
		t.Errorf("%+v, %v", keys, err)
	}
}
