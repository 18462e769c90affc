package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// TestProfile says what the time of a relay goes to. It judges nothing, and shares
// matter rather than times: so the machine may be busy.
func TestProfile(t *testing.T) {
	if !*profiling {
		t.Skip("test/bench/bench --profile runs it")
	}
	for _, program := range []string{"perf", "strace"} {
		if err := installed(program); err != nil {
			t.Skipf("%s %v: scripts/setup bench installs it", program, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("perf record -a needs root")
	}
	for _, load := range []struct{ name, service, job string }{
		{"one stream", "sink", "pour"}, {"new connections, 8 clients", "serve", "connect"}, {"request and answer on one connection", "serve", "ask"},
	} {
		t.Run(load.job, func(t *testing.T) {
			s := &session{T: t, H: harness.New(t)}
			if err := putLoad(s); err != nil {
				t.Fatal(err)
			}
			way := &road{name: "nuc link", open: linkRoad}
			err := way.begin(s, func(port int) []string {
				return []string{"env", fmt.Sprintf("%s=%s %d", loadVariable, load.service, port), s.H.Dir + "/load"}
			})
			if err != nil {
				t.Fatal(err)
			}
			samples, err := s.sampled(way, load.job)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("%s\n", load.name)
			printProfile(os.Stdout, samples, way)
			calls, err := s.traced(way, load.job)
			if err != nil {
				t.Fatal(err)
			}
			printCalls(os.Stdout, calls, load.job == "connect")
		})
	}
}

// sample is what a processor did at a moment: for which process, and in which
// functions, the innermost first. Those of the kernel end at kernel.
type sample struct {
	comm   string
	pid    int
	stack  []string
	kernel int
}

// under runs a load with a program beside it.
func (s *session) under(way *road, job string, beside *exec.Cmd) error {
	var said bytes.Buffer
	beside.Stdout, beside.Stderr = &said, &said
	if err := beside.Start(); err != nil {
		return err
	}
	time.Sleep(time.Second) // it looks at many processes before it begins
	_, err := figures(s, job, way)
	_ = beside.Process.Signal(unix.SIGINT)
	_ = beside.Wait() // its status is the signal's
	if err != nil {
		return fmt.Errorf("%w; %s: %s", err, beside.Path, said.String())
	}
	return nil
}

// sampled has perf look at all processors, on the processor's clock: a virtual
// machine may have no counters. -N, as perf else keeps hard links to the machine's
// programs in root's home.
func (s *session) sampled(way *road, job string) ([]sample, error) {
	file := filepath.Join(s.TempDir(), "perf.data")
	if err := s.under(way, job, exec.Command("perf", "record", "-q", "-N", "-a", "-g", "-F", "1999", "-e", "cpu-clock", "-o", file)); err != nil {
		return nil, err
	}
	script := exec.Command("perf", "script", "-i", file, "-F", "comm,pid,ip,sym")
	var said bytes.Buffer
	script.Stderr = &said
	out, err := script.Output()
	if err != nil {
		return nil, fmt.Errorf("perf script: %w: %s", err, said.String())
	}
	var all []sample
	for record := range strings.SplitSeq(string(out), "\n\n") {
		head, body, _ := strings.Cut(strings.Trim(record, "\n"), "\n")
		words := strings.Fields(head)
		if len(words) < 2 {
			continue
		}
		one := sample{comm: strings.Join(words[:len(words)-1], " ")}
		if one.pid, err = strconv.Atoi(words[len(words)-1]); err != nil {
			continue
		}
		for line := range strings.Lines(body) {
			address, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			one.stack = append(one.stack, name)
			if strings.HasPrefix(address, "ffffffff") {
				one.kernel = len(one.stack)
			}
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("perf record has seen nothing: %s", said.String())
	}
	return all, nil
}

// shares counts by name.
type shares map[string]int

// print writes the largest, in percent of whole.
func (c shares) print(w io.Writer, title string, whole, most int) {
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(c[b]-c[a], cmp.Compare(a, b)) })
	fmt.Fprintf(w, "  %s\n", title)
	for _, name := range names[:min(len(names), most)] {
		if share := 100 * float64(c[name]) / float64(max(whole, 1)); share >= 0.5 {
			fmt.Fprintf(w, "    %5.1f %%  %s\n", share, name)
		}
	}
}

// printProfile sorts the samples of those who take part.
func printProfile(w io.Writer, samples []sample, way *road) {
	whose, calls, functions := shares{}, shares{}, shares{}
	all, relay, delivering := 0, 0, 0
	for _, one := range samples {
		who := ""
		switch {
		case one.pid == way.roots[0]:
			who = "nuc link"
		case one.pid == way.server:
			who = "service"
		case one.comm == "load":
			who = "client"
		default:
			continue // somebody else's
		}
		all++
		whose[who]++
		if who != "nuc link" {
			continue
		}
		relay++
		functions[one.innermost()]++
		calls[one.call()]++
		if slices.Contains(one.stack, "handle_softirqs") || slices.Contains(one.stack, "__do_softirq") {
			delivering++
		}
	}
	whose.print(w, fmt.Sprintf("whose time it is (%d samples)", all), all, 3)
	calls.print(w, "the link's time, by system call", relay, 12)
	fmt.Fprintf(w, "    %5.1f %%  of it on the receiving side of the loopback device, which runs within the sender's call\n", 100*float64(delivering)/float64(max(relay, 1)))
	functions.print(w, "the link's time, by function", relay, 16)
}

// call is the system call that a sample is in.
func (one sample) call() string {
	for _, name := range slices.Backward(one.stack[:one.kernel]) {
		if call, is := strings.CutPrefix(name, "__x64_sys_"); is {
			return call
		}
	}
	if one.kernel > 0 {
		return "(into and out of the kernel, interrupts)"
	}
	return "(nuc itself)"
}

func (one sample) innermost() string {
	switch {
	case one.kernel > 0:
		return one.stack[0]
	case len(one.stack) > 0:
		return "(nuc itself) " + one.stack[0]
	}
	return "(unknown)"
}

// traced counts the link's system calls: strace makes them slow, not other ones.
func (s *session) traced(way *road, job string) (map[string]int, error) {
	file := filepath.Join(s.TempDir(), "strace")
	if err := s.under(way, job, exec.Command("strace", "-q", "-f", "-c", "-o", file, "-p", strconv.Itoa(way.roots[0]))); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(content)) {
		// % time, seconds, usecs/call, calls, errors where there are any, syscall.
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil {
			counts[f[len(f)-1]] = n
			if len(f) > 5 && f[len(f)-1] == "accept4" {
				failed, _ := strconv.Atoi(f[4])
				counts[accepted] = n - failed
			}
		}
	}
	if counts[accepted] == 0 {
		counts[accepted] = counts["accept4"]
	}
	return counts, nil
}

// accepted stands for the calls of accept4 that gave a connection.
const accepted = "accepted"

func printCalls(w io.Writer, counts map[string]int, perConnection bool) {
	by, title := 1.0, "the link's system calls, in %"
	if perConnection {
		by, title = float64(max(counts[accepted], 1)), "the link's system calls, for one connection"
	}
	delete(counts, accepted)
	sum := 0
	for _, n := range counts {
		sum += n
	}
	if !perConnection {
		by = float64(max(sum, 1)) / 100
	}
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	fmt.Fprintf(w, "  %s\n", title)
	for _, name := range names {
		if n := float64(counts[name]) / by; n >= 0.05 {
			fmt.Fprintf(w, "    %5.1f  %s\n", n, name)
		}
	}
}
