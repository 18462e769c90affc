package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// distance is that of a local network. Nothing of these rows leaves the machine:
// the host is one of the bench's own, and the outside behind a cable.
const distance = 100 * time.Microsecond

func outboundStream() *row {
	return wayOut("outbound-stream", "one stream (iperf3) from a container to what is beyond the host")
}

func outboundDownload() *row {
	return wayOut("outbound-download", "one stream (iperf3) from beyond the host to a container", "-R")
}

// wayOut is a row of one direction, by options of iperf3.
func wayOut(name, about string, direction ...string) *row {
	r := &row{
		Name: name, Unit: "Gbit/s", About: about,
		// It is pasta that nuc has, so a tie is all there can be.
		Wanted: []wanted{{AtLeast: 0.95, Of: "pasta"}, {AtLeast: 1, Of: "slirp4netns"}},
		runs:   7, warmUps: 1, place: []harness.Option{harness.WithDistance(distance)},
		setUp: func(s *session) error {
			if err := installed("iperf3"); err != nil {
				return err
			}
			s.H.Outside.Beyond("iperf3", "-s", "-B", harness.OutsideAddress4)
			return nil
		},
	}
	for _, way := range []struct {
		name string
		// open returns a process in the namespace, 0 for the host.
		open func(s *session) (inside int, err error)
	}{
		{"nuc", nucWayOut}, {direct, func(*session) (int, error) { return 0, nil }}, {"pasta", pastaWayOut}, {"slirp4netns", slirpWayOut},
	} {
		var inside int
		r.Subjects = append(r.Subjects, &subject{
			Name: way.name,
			prepare: func(s *session) (err error) {
				if inside, err = way.open(s); err != nil {
					return err
				}
				_, err = arrives(s, inside, append(direction, "-n", "1K")...)
				return err
			},
			run: func(s *session) (float64, error) { return arrives(s, inside, append(direction, "-t", "3")...) },
		})
	}
	return r
}

// arrives is stream, once there is a way and the server, which has one client at a
// time, has let go of the one before.
func arrives(s *session, inside int, options ...string) (gbits float64, err error) {
	err = eventually(func() (err error) {
		gbits, err = stream(s, inside, options...)
		return err
	})
	return gbits, err
}

// stream is how many Gbit/s arrive from a process's namespace, or with -R there.
func stream(s *session, inside int, options ...string) (float64, error) {
	command := append([]string{"iperf3", "-J", "-c", harness.OutsideAddress4}, options...)
	if inside != 0 {
		command = append(within(inside), command...)
	}
	out, err := s.client("", command...)
	if err != nil {
		return 0, err
	}
	var report struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return 0, err
	}
	if report.Error != "" {
		return 0, errors.New(report.Error)
	}
	return report.End.Received.Bits / 1e9, nil
}

func eventually(f func() error) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func nucWayOut(s *session) (int, error) {
	const name = "bench-outbound"
	s.H.Up(name, debian, func(d map[string]any) {
		d["root"].(map[string]any)["ephemeral"] = true
		d["system"] = map[string]any{"init": "/bin/sleep", "arguments": []string{"infinity"}, "ttyGroup": 5}
		d["ready"] = map[string]any{"notify": false}
	})
	err := eventually(func() error {
		var status struct{ Outbound struct{ Driver string } }
		if err := json.Unmarshal([]byte(s.H.Nuc("status", "--json", name).Stdout), &status); err != nil {
			return err
		}
		if status.Outbound.Driver == "" {
			return errors.New("the container has no way out")
		}
		return nil
	})
	return s.H.Roles().Init, err
}

func pastaWayOut(s *session) (int, error) {
	pid, err := s.keep(nil, "pasta", "--foreground", "--config-net", "-t", "none", "-T", "none", "-u", "none", "-U", "none", "--", "sleep", "infinity")
	if err != nil {
		return 0, err
	}
	return descendant(pid, "sleep")
}

func slirpWayOut(s *session) (int, error) {
	inside, err := s.namespace()
	if err != nil {
		return 0, err
	}
	_, err = s.keep(nil, "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback",
		"--userns-path", fmt.Sprintf("/proc/%d/ns/user", inside), "--netns-type=path", fmt.Sprintf("/proc/%d/ns/net", inside), "tap0")
	return inside, err
}
