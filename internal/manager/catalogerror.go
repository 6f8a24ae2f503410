package manager

import (
	"errors"
	"net/http"

	"github.com/sharding-system/sharding/internal/catalog"
)

// catalogError is what the catalog refused, as the API says it; nil for every
// other error.
func catalogError(err error) *apiError {
	var known *catalog.Error
	if !errors.As(err, &known) {
		return nil
	}
	text := known.Op + ": " + known.Kind.Error()
	if known.Detail != "" {
		text += ": " + known.Detail
	}
	switch {
	case errors.Is(err, catalog.ErrConflict):
		return conflict(codeConflict, "%s", text).withHint("Read it again and decide again.").because(err)
	case errors.Is(err, catalog.ErrNotFound):
		return notFound(codeNotFound, "%s", text).because(err)
	case errors.Is(err, catalog.ErrExists):
		return conflict(codeExists, "%s", text).because(err)
	case errors.Is(err, catalog.ErrInUse):
		return conflict(codeInUse, "%s", text).because(err)
	case errors.Is(err, catalog.ErrLocked):
		return conflict(codeInUse, "another change of the keyspace is under way").withHint("Try again in a moment.").because(err)
	case errors.Is(err, catalog.ErrInvalid):
		return invalid("%s", known.Error()).because(err)
	case errors.Is(err, catalog.ErrLost):
		return fail(http.StatusServiceUnavailable, codeCatalog, "the lock on the keyspace was lost, and nothing was changed").because(err)
	case errors.Is(err, catalog.ErrUnavailable):
		return fail(http.StatusServiceUnavailable, codeCatalog, "the catalog (etcd) does not answer; the change may have happened").
			withHint("Read again before you repeat it.").because(err)
	}
	return nil
}
