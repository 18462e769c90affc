// Package bench measures nuc beside other programs that do the same, or less.
//
// A row is one thing that is measured, its subjects are who does it. All
// subjects of a row take turns, so that whatever else the machine does meets
// each of them, and what is compared are medians. To add a row, write a
// function that returns one and name it in rows.
package bench

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// rows are all rows, in the order of the table.
var rows = []func() *row{
	startTrue,
	startSystemd,
	execTrue,
	idlePSS,
	idleWakeups,
	relayStream,
	relayStreams8,
	relayCPU,
	relayConnections,
	relayLatency,
	relayLatency99,
	relayMemory,
	relayMemory1000,
	relayMemory10000,
	handoverStream,
	outboundStream,
	outboundDownload,
	bootProfile,
	profileUnits,
	profileProcesses,
	profileClosure,
	profileSize,
	switches,
	evaluate,
	upAgain,
	upAgainBare,
	shellEnter,
	projectUp,
}

var (
	out       = flag.String("out", "", "write all runs to this `file`, as JSON; without it nothing is measured")
	only      = flag.String("rows", "", "measure only the rows whose name this `regexp` matches")
	whose     = flag.String("subjects", "", "measure nuc beside only the subjects whose name this `regexp` matches")
	quick     = flag.Bool("quick", false, "make a quarter of the runs: a glance, not a measurement")
	profiling = flag.Bool("profile", false, "say what the time of a relay goes to, and measure nothing")
	login     = flag.Bool("login", false, "measure with the caller's own systemd, whose services nuc's containers are then")
	lap       = flag.Duration("lap", 2*time.Minute, "give a run of one subject up after this `time`")
	runs      = flag.Int("runs", 0, "make this `number` of runs of every subject, instead of the row's own")
)

func TestMain(m *testing.M) {
	if job := os.Getenv(loadVariable); job != "" {
		os.Exit(load(job))
	}
	harness.Main(m)
}

// TestBench is a test so that the harness can serve it; it fails only when
// something is left behind or a row can't be set up, never for a figure.
func TestBench(t *testing.T) {
	if *out == "" || *profiling {
		t.Skip("make bench runs it")
	}
	chosen, err := regexp.Compile(*only)
	if err != nil {
		t.Fatalf("--rows: %v", err)
	}
	among, err := regexp.Compile(*whose)
	if err != nil {
		t.Fatalf("--subjects: %v", err)
	}
	var measured []*row
	for _, make := range rows {
		r := make()
		if !chosen.MatchString(r.Name) {
			continue
		}
		r.Subjects = slices.DeleteFunc(r.Subjects, func(sub *subject) bool {
			return sub.Name != "nuc" && !among.MatchString(sub.Name)
		})
		if *login {
			r.place = append(r.place, harness.AtLogin())
		}
		measured = append(measured, r)
		// A session a row: its containers are gone before the next begins.
		t.Run(r.Name, func(t *testing.T) { r.measure(&session{T: t, H: harness.New(t, r.place...)}) })
	}
	if len(measured) == 0 {
		t.Fatalf("--rows %s: no row has such a name", *only)
	}
	if err := writeTable(os.Stdout, measured); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(*out, measured); err != nil {
		t.Fatal(err)
	}
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
