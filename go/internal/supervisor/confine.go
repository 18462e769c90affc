package supervisor

import (
	"os"
	"path/filepath"

	"github.com/nix-user-containers/nuc/go/internal/landlock"
)

// Confinement tells what a supervisor may still do.
type Confinement struct {
	// Landlock is the version of the kernel's Landlock that confines it, 0 for none.
	Landlock int `json:"landlock"`
	// Starter is the process that starts what a confined supervisor can't.
	Starter int `json:"starterPid,omitempty"`
	// Reason says why it is not confined.
	Reason string `json:"reason,omitempty"`
}

// confine confines the supervisor when its container is up for the first time:
// off the way of the start, which needs what is taken then. Clients wait for
// nothing of it.
func (s *Supervisor) confine() {
	if !s.o.Confine {
		return
	}
	s.confinable.Do(func() {
		s.confined.Go(func() {
			c := s.confineNow()
			if c.Reason != "" {
				s.log.Info("the supervisor is not confined", "container", s.o.Container.Name, "reason", c.Reason)
			}
			s.change(func(st *Status) { st.Confinement = &c })
		})
	})
}

func (s *Supervisor) confineNow() (c Confinement) {
	if _, err := landlock.ABI(); err != nil {
		c.Reason = err.Error()
		return c
	}
	if err := s.starter.Separate(); err != nil {
		c.Reason = err.Error()
		return c
	}
	for _, pid := range s.starter.Processes() {
		c.Starter = pid
	}
	var err error
	if c.Landlock, err = landlock.Confine(s.needs()); err != nil {
		c.Reason = err.Error()
	}
	return c
}

// needs are the files of a supervisor whose container is up. What a switch names
// is opened by the keeper, and copied by the starter.
func (s *Supervisor) needs() landlock.Rules {
	r := landlock.Rules{
		// /etc as a whole, as what is in it is replaced, not written. What others
		// keep from being traced stays closed below /proc.
		Read:  append([]string{"/proc", "/sys/fs/cgroup", "/etc", "/usr/lib/os-release"}, resolvers()...),
		Write: []string{s.o.Container.Runtime, s.o.Container.State},
		Use:   []string{os.DevNull},
		Tidy:  []string{filepath.Dir(s.o.Container.Runtime)},
	}
	s.updating.Lock()
	defer s.updating.Unlock()
	if s.group != nil {
		if x := s.group.Description().X; x != "" {
			r.Write = append(r.Write, x)
		}
	}
	return r
}

// resolvers are the folders that /etc/resolv.conf leads to, here and by the
// programs that are known to put a link there: it changes with the host's network.
func resolvers() []string {
	// /etc is a folder of links to the store on NixOS.
	found := []string{
		"/nix/store", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/connman", "/run/netconfig",
		"/mnt/wsl",
	}
	if path, err := filepath.EvalSymlinks(hostResolvConf); err == nil {
		found = append(found, filepath.Dir(path))
	}
	return found
}

// withoutStarter is told that the starter was killed.
func (s *Supervisor) withoutStarter() {
	s.mu.Lock()
	stopping := s.wholly
	s.mu.Unlock()
	if stopping {
		return
	}
	s.warn("the process that starts things for the supervisor was killed: a way out that ends, declared links and another run can't be started any more: restart the container")
	s.change(func(st *Status) {
		if c := st.Confinement; c != nil {
			st.Confinement = &Confinement{Landlock: c.Landlock, Reason: c.Reason}
		}
	})
}
