package twophase

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

var rewrite = flag.Bool("rewrite", false, "write the scenarios' outputs anew")

// TestScenarios replays testdata/coordinator: lines that begin with ">" are what
// happens, the others what the coordinator wants done then.
//
//	> participants a b! c?         ! cannot be prepared, ? COMMIT may fail
//	> 0 value w                    participant 0's answer to the probe
//	> 0 tag COMMIT | lost | finished | unfinished
//	> 0 fail 23505 [open]          an ERROR; the transaction is idle or still open
//	> verdict commit | abort | none
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/coordinator/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	var out strings.Builder
	var c *Coordinator
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.TrimPrefix(line, ">"))
		switch {
		case strings.HasPrefix(line, "#") || line == "\n":
			out.WriteString(line)
			continue
		case !strings.HasPrefix(line, ">"):
			continue
		}
		out.WriteString(line)
		var actions []Action
		if words[0] == "participants" {
			c = scenarioCoordinator(words[1:])
			actions = c.Start()
		} else {
			ev, err := parseEvent(words)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			actions = c.On(ev)
		}
		for _, a := range actions {
			out.WriteString("  " + show(a) + "\n")
		}
	}
	return out.String()
}

func scenarioCoordinator(words []string) *Coordinator {
	var ps []Participant
	gid := GID{Incarnation: "inc", Router: "r1", Boot: "b1", Counter: 7}
	for _, w := range words {
		if name, ok := strings.CutPrefix(w, "router="); ok {
			gid.Router = name
			continue
		}
		name := strings.TrimRight(w, "!?")
		ps = append(ps, Participant{
			Shard: sharding.ShardID(name), NoPrepare: strings.Contains(w, "!"), CommitMayFail: strings.Contains(w, "?"),
		})
	}
	return NewCoordinator(gid, ps)
}

func parseEvent(words []string) (Event, error) {
	if words[0] == "verdict" {
		if words[1] == "none" {
			return Event{Kind: Unresolved}, nil
		}
		return Event{Kind: Resolved, Verdict: Verdict(words[1])}, nil
	}
	n, err := strconv.Atoi(words[0])
	ev := Event{Participant: n}
	rest := strings.Join(words[2:], " ")
	switch words[1] {
	case "value":
		ev.Value = rest
	case "tag":
		ev.Tag = rest
	case "lost":
		ev.Kind = Lost
	case "finished":
		ev.Kind = Finished
	case "unfinished":
		ev.Kind = Unfinished
	case "fail":
		ev.Kind, ev.InTransaction = Failed, len(words) > 3
		ev.Err = pgerr.New(words[2], "the server's message")
		if words[2] == "decided" {
			ev.Err = &pgerr.Error{Code: pgerr.UniqueViolation, Schema: "sharding", Table: "decision"}
		}
	default:
		return ev, fmt.Errorf("event %q is unknown", words[1])
	}
	return ev, err
}

func show(a Action) string {
	switch a.Kind {
	case Send:
		return fmt.Sprintf("%s: send %d %s", a.Point, a.Participant, strings.Replace(a.SQL, probeSQL, "PROBE", 1))
	case Resolve:
		return fmt.Sprintf("%s: resolve %s", a.Point, a.GID)
	case Finish:
		return fmt.Sprintf("%s: finish %d %s %s wait=%v", a.Point, a.Participant, a.Branch, a.Verdict, a.Wait)
	case Discard:
		return fmt.Sprintf("discard %d", a.Participant)
	}
	s := fmt.Sprintf("%s: %s, %d writers", a.Point, a.Outcome.State, a.Outcome.Writers)
	if e := a.Outcome.Err; e != nil {
		s += fmt.Sprintf(", %s %s", e.Code, e.Message)
	}
	for _, w := range a.Outcome.Warnings {
		s += fmt.Sprintf("; %s %s %s", w.Severity, w.Code, w.Message)
	}
	return s
}
