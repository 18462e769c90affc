package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/listener"
)

// Restart lists what of a descriptor differs that a running container can't
// take over, by JSON path. Init and its arguments are left out: a switch
// inside does their work, and the next boot takes the new ones.
func Restart(old, new *descriptor.Descriptor) []string {
	var keys []string
	differ := func(key string, same bool) {
		if !same {
			keys = append(keys, key)
		}
	}
	differ("root", old.Root == new.Root)
	differ("mounts", slices.Equal(old.Mounts, new.Mounts))
	differ("rootOwned", slices.Equal(old.RootOwned, new.RootOwned))
	differ("devices", slices.Equal(old.Devices, new.Devices))
	differ(credentialsKey, slices.EqualFunc(old.Credentials, new.Credentials, descriptor.Credential.Equal))
	differ("ids", old.IDs == new.IDs)
	differ("network.mode", old.Network.Mode == new.Network.Mode)
	differ("network.outbound", old.Network.Outbound == new.Network.Outbound)
	differ("network.hostLoopback", old.Network.HostLoopback == new.Network.HostLoopback)
	// Other limits can be set; whether there are any is a matter of rights.
	differ("network.allow", isFixed(old) == isFixed(new))
	differ("network.mtu", old.Network.MTU == new.Network.MTU)
	// NixOS has them in its own /etc/hosts, which the switch replaces; a file of
	// the launcher's is changed live.
	_, linked := hostsFile(old)
	differ("network.hosts", new.System.Toplevel != "" || linked || maps.Equal(old.Network.Hosts, new.Network.Hosts))
	differ(handOverKey, slices.Equal(handedOver(old), handedOver(new)))
	differ("security.seccomp", old.Security == new.Security)
	differ("system.ttyGroup", old.System.TTYGroup == new.System.TTYGroup)
	return keys
}

const (
	credentialsKey = "credentials"
	handOverKey    = "network.ports[].handOver"
)

// RestartListening is Restart for a container that only listens: the run that
// comes takes over all but what the supervisor holds.
func RestartListening(old, new *descriptor.Descriptor) []string {
	held := []string{"ids", credentialsKey, handOverKey}
	return slices.DeleteFunc(Restart(old, new), func(key string) bool { return !slices.Contains(held, key) })
}

// handedOver are the ports that init got when it was started.
func handedOver(d *descriptor.Descriptor) (ports []descriptor.Port) {
	for _, p := range d.Network.Ports {
		if p.HandOver {
			ports = append(ports, p)
		}
	}
	return ports
}

// descriptor is the one in force.
func (s *Supervisor) descriptor() *descriptor.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Descriptor
}

// update takes over another descriptor of the running container: ports and
// limits at once, the rest at the next boot. It changes all or nothing.
func (s *Supervisor) update(c *Command) error {
	source, generation := c.Descriptor, c.Generation
	s.updating.Lock()
	defer s.updating.Unlock()
	d, err := descriptor.Read(source)
	if err != nil {
		return err
	}
	if err := CheckStore(d); err != nil {
		return err
	}
	old := s.descriptor()
	if d.Name != old.Name {
		return fmt.Errorf("the descriptor is container %s's", d.Name)
	}
	s.mu.Lock()
	entries := s.entries
	s.mu.Unlock()
	ports, err := openPorts(d.Network.Ports, entries, false)
	if err != nil {
		var taken *listener.Error
		if errors.As(err, &taken) && errors.Is(err, unix.EADDRINUSE) && taken.Holder.PID == 0 {
			taken.Holder = s.starter.Holder(taken.Address) // who sees more
		}
		return err
	}
	if s.group != nil { // it runs
		warnings, err := s.group.Update(old.Resources, d.Resources)
		if err != nil {
			ports.undo()
			return err
		}
		for _, w := range warnings {
			s.warn(w)
		}
	}
	fault.At("updating")
	s.mu.Lock()
	s.o.Descriptor, s.o.Source = d, source
	s.mu.Unlock()
	s.usePorts(ports)
	for _, p := range ports.gone {
		p.close()
	}
	s.arrange()
	s.checkHandedOver(false)
	s.stir()
	s.publishChanges(old, d)
	if s.group != nil {
		s.links(d)
	}
	go s.protect(generation, source, c.StorePath)
	s.change(func(st *Status) { st.Generation = generation })
	return nil
}

// answerUpdate serves OpUpdate.
func (s *Supervisor) answerUpdate(c *Command) keeper.Reply {
	if err := s.update(c); err != nil {
		return keeper.Reply{Kind: keeper.Failed, Error: err.Error(), Status: 125}
	}
	return keeper.Reply{Kind: keeper.Started}
}
