package api

import (
	"net/http"
	"slices"

	"sluice.dev/sluice"
)

// getHot lists hot keys. Keys are data: who may use some tables only sees only
// theirs.
func (q *request) getHot() error {
	if q.who.MayRead("") != nil {
		if err := q.who.MayAdmin(); err != nil {
			return err
		}
	}
	keys := q.h.o.Admin.Hot()
	if !q.who.AllTables() {
		keys = slices.DeleteFunc(keys, func(k sluice.HotKey) bool { return q.who.may(true, "see", k.Table) != nil })
	}
	if keys == nil {
		keys = []sluice.HotKey{}
	}
	return q.sendJSON(http.StatusOK, map[string]any{"hot": keys})
}
