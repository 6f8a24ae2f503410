package manager_test

import (
	"os"
	"testing"

	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
