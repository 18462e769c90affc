package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// relayed makes a row of all roads to a service.
// better is how nuc's figure is to be, beside those who have no bound of
// their own.
func relayed(r row, better wanted, service func(s *session, port int) []string, run func(s *session, r *road) (float64, error)) *row {
	for _, way := range roads() {
		r.Subjects = append(r.Subjects, &subject{
			Name: way.name, own: way.own,
			prepare: func(s *session) error { return way.begin(s, func(port int) []string { return service(s, port) }) },
			run:     func(s *session) (float64, error) { return run(s, way) },
		})
	}
	r.bounds(better)
	return &r
}

// Nobody who relays is to be ahead of nuc.
var (
	more = wanted{AtLeast: 1}
	less = wanted{AtMost: 1}
)

func iperfServer(_ *session, port int) []string {
	return []string{"iperf3", "-s", "-p", strconv.Itoa(port)}
}

// iperf runs a client and returns the bits a second and the bytes that arrived.
func iperf(s *session, r *road, options ...string) (bits, bytes float64, err error) {
	out, err := s.client("", append([]string{"iperf3", "-J", "-c", "127.0.0.1", "-p", strconv.Itoa(r.port)}, options...)...)
	if err != nil {
		return 0, 0, err
	}
	var report struct {
		Error string
		End   struct {
			Received struct {
				Bytes float64
				Bits  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return 0, 0, err
	}
	if report.Error != "" {
		return 0, 0, errors.New(report.Error)
	}
	return report.End.Received.Bits, report.End.Received.Bytes, nil
}

func streams(options ...string) func(*session, *road) (float64, error) {
	return func(s *session, r *road) (float64, error) {
		bits, _, err := iperf(s, r, append(options, "-t", "3")...)
		return bits / 1e9, err
	}
}

func relayStream() *row {
	return relayed(row{
		Name: "relay-stream", Unit: "Gbit/s", About: "one stream (iperf3) from the host into a container",
		Wanted: []wanted{{AtLeast: 0.85, Of: direct}, {AtLeast: 4.5, Of: "two socats"}, {AtLeast: 1.4, Of: "pasta"}},
		runs:   7, warmUps: 1,
	}, more, iperfServer, streams())
}

func relayStreams8() *row {
	return relayed(row{
		Name: "relay-streams-8", Unit: "Gbit/s", About: "eight streams (iperf3) from the host into a container",
		Wanted: []wanted{{AtLeast: 0.9, Of: direct}, {AtLeast: 4.5, Of: "two socats"}, {AtLeast: 1.4, Of: "pasta"}},
		runs:   7, warmUps: 1,
	}, more, iperfServer, streams("-P", "8"))
}

// relayCPU is the relay's own time. Its kernel part includes what the loopback
// device has the sender do for the receiver.
func relayCPU() *row {
	return relayed(row{
		Name: "relay-cpu", Unit: "s/GB", About: "processor time of the relay's processes for a stream, by the gigabyte",
		Wanted: []wanted{{AtMost: 0.4, Of: "two socats"}},
		runs:   5, warmUps: 1,
	}, less, iperfServer, func(s *session, r *road) (float64, error) {
		before, err := r.processorTime()
		if err != nil {
			return 0, err
		}
		_, bytes, err := iperf(s, r, "-n", "4G")
		if err != nil {
			return 0, err
		}
		after, err := r.processorTime()
		return (after - before) / (bytes / 1e9), err
	})
}

// putLoad puts this binary where the test's user can run it.
func putLoad(s *session) error {
	content, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		s.H.Write("load", string(content), 0o755)
	}
	return err
}

func loadServer(s *session, port int) []string {
	return []string{"env", fmt.Sprintf("%s=serve %d", loadVariable, port), s.H.Dir + "/load"}
}

// figures runs a load and returns the numbers that it prints.
func figures(s *session, job string, r *road) ([]float64, error) {
	out, err := s.client(fmt.Sprintf("%s=%s %d", loadVariable, job, r.port), s.H.Dir+"/load")
	if err != nil {
		return nil, err
	}
	var all []float64
	for _, word := range strings.Fields(out) {
		f, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func relayConnections() *row {
	return relayed(row{
		Name: "relay-connections", Unit: "/s", About: "new connections with one small request each, 8 clients",
		Wanted: []wanted{{AtLeast: 0.45, Of: direct}, {AtLeast: 6, Of: "two socats"}, {AtLeast: 1.4, Of: "pasta"}},
		runs:   7, warmUps: 1, setUp: putLoad,
	}, more, loadServer, func(s *session, r *road) (float64, error) {
		f, err := figures(s, "connect", r)
		if err != nil {
			return 0, err
		}
		return f[0], nil
	})
}

func relayLatency() *row { return latency("relay-latency", "half", 0) }

func relayLatency99() *row { return latency("relay-latency-p99", "99 %", 1) }

func latency(name, part string, which int) *row {
	return relayed(row{
		Name: name, Unit: "µs", About: part + " of the answers on an open connection come within this",
		runs: 7, warmUps: 1, setUp: putLoad,
	}, less, loadServer, func(s *session, r *road) (float64, error) {
		f, err := figures(s, "ask", r)
		if err != nil {
			return 0, err
		}
		return f[which], nil
	})
}

func relayMemory() *row { return memory("relay-memory", 0) }

func relayMemory1000() *row { return memory("relay-memory-1000", 1000) }

func relayMemory10000() *row { return memory("relay-memory-10000", 10000) }

// memory is that of a relay's processes. The direct road has none. There are fewer
// connections where the limit of open files has no room for two sockets each.
func memory(name string, connections int) *row {
	meant := connections
	connections = min(connections, (openFiles()-ownFiles)/2)
	about := fmt.Sprintf("the relay's processes with %d open connections, proportional set size", connections)
	if connections < meant {
		about += fmt.Sprintf(" (%d need %d open files a process, and root may have %d here)", meant, 2*meant+ownFiles, openFiles())
	}
	r := relayed(row{
		Name: name, Unit: "MiB", About: about,
		runs: 1,
	}, less, loadServer, func(s *session, r *road) (float64, error) {
		if connections > 0 {
			end, err := held(s, r, connections)
			if err != nil {
				return 0, err
			}
			defer end()
		}
		return r.memory()
	})
	r.setUp = putLoad
	var relays []*subject
	for _, sub := range r.Subjects {
		if sub.Name == direct {
			continue
		}
		prepare := sub.prepare
		sub.prepare = func(s *session) error {
			if err := manyFiles(uint64(2*connections + ownFiles)); err != nil {
				return err
			}
			return prepare(s)
		}
		relays = append(relays, sub)
	}
	r.Subjects = relays
	return r
}

// held opens connections and returns what ends them.
func held(s *session, r *road, connections int) (end func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), *lap)
	cmd, release := s.H.Program(ctx, s.H.Dir+"/load")
	defer release()
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=hold %d %d", loadVariable, r.port, connections))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	end = func() {
		input.Close()
		_ = cmd.Wait()
		cancel()
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	if said, _ := bufio.NewReader(output).ReadString('\n'); said != "held\n" {
		late := ctx.Err() != nil
		end()
		if late {
			return nil, fmt.Errorf("%d connections: not within %s", connections, *lap)
		}
		return nil, fmt.Errorf("%d connections: %s", connections, strings.TrimSpace(stderr.String()))
	}
	time.Sleep(200 * time.Millisecond) // what is still being freed
	return end, nil
}
