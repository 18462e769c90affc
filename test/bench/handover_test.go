package bench

import (
	"fmt"
	"os"
)

// handoverStream is into a service that systemd starts in the container, on a
// socket of the host's.
func handoverStream() *row {
	r := &row{
		Name: "handover-stream", Unit: "Gbit/s", About: "one stream from the host into a service on a socket that was handed over",
		Wanted: []wanted{{AtLeast: 0.97, Of: direct}},
		runs:   15, warmUps: 1, setUp: putLoad,
	}
	roads := []*road{
		{name: "nuc", open: handedRoad},
		{name: direct, open: func(_ *session, r *road) error { r.service = r.port; return nil }},
	}
	for _, way := range roads {
		r.Subjects = append(r.Subjects, &subject{
			Name: way.name,
			prepare: func(s *session) error {
				return way.begin(s, func(port int) []string {
					if way.name == "nuc" {
						return nil // systemd has it
					}
					return []string{"env", fmt.Sprintf("%s=sink %d", loadVariable, port), s.H.Dir + "/load"}
				})
			},
			run: func(s *session) (float64, error) {
				f, err := figures(s, "pour", way)
				if err != nil {
					return 0, err
				}
				return f[0], nil
			},
		})
	}
	return r
}

// handedRoad has the service in a container with systemd.
func handedRoad(s *session, r *road) error {
	const name = "bench-handover"
	s.H.Up(name, debian, func(d map[string]any) {
		d["network"] = map[string]any{"ports": []any{map[string]any{"host": r.port, "container": r.port, "protocol": "tcp", "handOver": true}}}
	})
	program, err := os.ReadFile(s.H.Dir + "/load")
	if err != nil {
		return err
	}
	for path, text := range map[string]string{
		"/usr/local/bin/sink":             string(program),
		"/etc/systemd/system/sink.socket": fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\n[Install]\nWantedBy=sockets.target\n", r.port),
		"/etc/systemd/system/sink.service": fmt.Sprintf("[Service]\nEnvironment=\"%s=sink %s\"\nExecStart=/usr/local/bin/sink\n",
			loadVariable, handed),
	} {
		if put := s.H.NucInput(text, "exec", name, "sh", "-c", "cat >"+path); put.Code != 0 {
			return fmt.Errorf("%s: %s", path, put.Stderr)
		}
	}
	s.H.Must("exec", name, "sh", "-ec", "chmod +x /usr/local/bin/sink; systemctl enable sink.socket")
	s.H.Must("restart", name)
	return nil
}
