// Package descriptor holds the one JSON file that says everything about a
// container, and reads it strictly: what it returns has been checked, and what
// it refuses is named by JSON path, value and expectation.
package descriptor

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Version is the descriptor version this package reads.
const Version = 1

// Descriptor describes one container. Read returns it with every default
// filled in, so that no other package knows a default.
type Descriptor struct {
	Version   int      `json:"version"`
	Name      string   `json:"name"`
	System    System   `json:"system"`
	Root      Root     `json:"root"`
	Mounts    []Mount  `json:"mounts,omitempty"`
	RootOwned []string `json:"rootOwned,omitempty"`
	Devices   []string `json:"devices,omitempty"`
	// Credentials are secrets for the container's services.
	Credentials []Credential `json:"credentials,omitempty"`
	IDs         IDs          `json:"ids"`
	Network     Network      `json:"network"`
	Links       []Link       `json:"links,omitempty"`
	DependsOn   []string     `json:"dependsOn,omitempty"`
	// Restart is RestartNo, RestartOnFailure or RestartAlways.
	Restart string `json:"restart,omitempty"`
	// WatchdogSeconds is how long a supervisor may be silent, 0 for ever.
	WatchdogSeconds int        `json:"watchdogSeconds,omitempty"`
	Resources       *Resources `json:"resources,omitempty"`
	Security        Security   `json:"security"`
	Ready           Ready      `json:"ready"`
}

// Values of restart.
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// System says what runs as pid 1 and how it is switched and stopped.
type System struct {
	// Init is an absolute path inside the root.
	Init        string            `json:"init"`
	Arguments   []string          `json:"arguments,omitempty"`
	Environment map[string]string `json:"environment,omitempty"`
	// Toplevel is the store path of the NixOS system, where it is one.
	Toplevel string `json:"toplevel,omitempty"`
	// Switch is the command that activates a new generation inside; its first
	// word is an absolute path inside the root.
	Switch []string `json:"switch,omitempty"`
	// TTYGroup is the gid that devpts gives to terminals (Debian 5, NixOS 3).
	TTYGroup int  `json:"ttyGroup"`
	Stop     Stop `json:"stop"`
}

// Stop says how init is asked to power off.
type Stop struct {
	// Signal is a name as in signal(7): SIGTERM, SIGRTMIN+3.
	Signal         string `json:"signal"`
	TimeoutSeconds int    `json:"timeoutSeconds"`
}

// Root chooses the root file system: a folder in the state folder by default.
type Root struct {
	// State keeps what is written; it is always the opposite of Ephemeral.
	State bool `json:"state,omitempty"`
	// Tree is a folder used as the lower layer of an overlay, never written.
	Tree string `json:"tree,omitempty"`
	// Ephemeral puts the root (or the overlay's upper layer) on a tmpfs that
	// is forgotten at stop.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// SizeBytes limits that tmpfs; 0 is the kernel's default, half of memory.
	SizeBytes int64 `json:"sizeBytes,omitempty"`
}

// Mount is one entry below the container's root.
type Mount struct {
	Kind      string `json:"kind"`
	Source    string `json:"source,omitempty"`
	Target    string `json:"target"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	Recursive bool   `json:"recursive,omitempty"`
	Optional  bool   `json:"optional,omitempty"`
	SizeBytes int64  `json:"sizeBytes,omitempty"`
}

// Mount kinds.
const (
	KindBind  = "bind"
	KindTmpfs = "tmpfs"
)

// Credential is a secret, and where it is had from: exactly one of File, Command
// and Environment is set.
type Credential struct {
	// Name is what services know it by (LoadCredential= of systemd.exec(5)).
	Name string `json:"name"`
	// File is one of the host's.
	File string `json:"file,omitempty"`
	// Command prints the secret; its first word is an absolute path of the host,
	// or a name to be found in PATH.
	Command []string `json:"command,omitempty"`
	// Environment is the name of a variable of who starts the container.
	Environment string `json:"environment,omitempty"`
	// Optional starts the container without the secret if it can't be had.
	Optional bool `json:"optional,omitempty"`
}

// Equal tells whether two credentials are had from the same place.
func (c Credential) Equal(other Credential) bool {
	return c.Name == other.Name && c.File == other.File && slices.Equal(c.Command, other.Command) &&
		c.Environment == other.Environment && c.Optional == other.Optional
}

// IDs says how many user and group ids the container wants.
type IDs struct {
	Count int `json:"count"`
}

// Network modes.
const (
	NetworkPrivate = "private"
	NetworkHost    = "host"
)

// Network says what the container reaches and what reaches it.
type Network struct {
	Mode string `json:"mode"`
	// Outbound gives a private network a way out. In host mode it is false:
	// nothing is to be made.
	Outbound     bool `json:"outbound"`
	HostLoopback bool `json:"hostLoopback,omitempty"`
	// Allow are the only places that the way out leads to, as ParseAllow reads
	// them; none is no limit.
	Allow []string `json:"allow,omitempty"`
	// MTU is in bytes; 0 is the way out's own default.
	MTU int `json:"mtu,omitempty"`
	// DNS are addresses of name servers; none are the host's, followed live.
	DNS   []string          `json:"dns,omitempty"`
	Hosts map[string]string `json:"hosts,omitempty"`
	Ports []Port            `json:"ports,omitempty"`
	// IdleStopSeconds is 0 where the container is never stopped for want of
	// connections.
	IdleStopSeconds int `json:"idleStopSeconds,omitempty"`
}

// MarshalJSON leaves outbound out in host mode, where Read refuses it.
func (n Network) MarshalJSON() ([]byte, error) {
	type members Network
	if n.Mode != NetworkHost {
		return json.Marshal(members(n))
	}
	return json.Marshal(struct {
		members
		Outbound bool `json:"outbound,omitempty"`
	}{members: members(n)})
}

// Protocols of ports and links.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Port is a host port, or a range of them, that leads to a container port.
type Port struct {
	// Host is the first port of the range; 0 lets the kernel choose one.
	Host      int `json:"host"`
	Container int `json:"container"`
	// Count is how many consecutive ports there are on both sides.
	Count    int    `json:"count"`
	Protocol string `json:"protocol"`
	// Address is where the host listens.
	Address string `json:"address"`
	// ProxyProtocol tells the service the client's address: a header of the
	// PROXY protocol, version 2, comes before what the client sends.
	ProxyProtocol bool `json:"proxyProtocol,omitempty"`
	// HandOver gives init the host's own listener; nothing is relayed.
	HandOver bool `json:"handOver,omitempty"`
	// SocketActivation starts the container at the first connection.
	SocketActivation bool `json:"socketActivation,omitempty"`
}

// Link is a listener in this container, or a range of them, relayed to a port
// of another container.
type Link struct {
	Listen int `json:"listen"`
	// To is the other container's name.
	To   string `json:"to"`
	Port int    `json:"port"`
	// Count is how many consecutive ports there are on both sides.
	Count    int    `json:"count"`
	Protocol string `json:"protocol"`
	// Address is where the container listens. Without it, that is PeerAddress
	// of the other one, and localhost where no other link has the port.
	Address string `json:"address,omitempty"`
}

// Resources limits the payload's cgroup. A zero value sets no limit.
type Resources struct {
	MemoryMax       int64 `json:"memoryMax,omitempty"`
	MemoryHigh      int64 `json:"memoryHigh,omitempty"`
	CPUQuotaPercent int   `json:"cpuQuotaPercent,omitempty"`
	CPUWeight       int   `json:"cpuWeight,omitempty"`
	TasksMax        int64 `json:"tasksMax,omitempty"`
	IOWeight        int   `json:"ioWeight,omitempty"`
	// Optional starts the container without the limits that can't be applied.
	Optional bool `json:"optional,omitempty"`
}

// Values of security.seccomp.
const (
	SeccompDefault = "default"
	SeccompOff     = "off"
)

// Security limits what the container's processes may do.
type Security struct {
	// Seccomp is SeccompDefault or SeccompOff.
	Seccomp string `json:"seccomp"`
}

// Ready says when the container counts as ready.
type Ready struct {
	// Notify waits for init's READY=1 (sd_notify(3)).
	Notify         bool     `json:"notify"`
	Units          []string `json:"units,omitempty"`
	TimeoutSeconds int      `json:"timeoutSeconds"`
}

// Marshal writes the descriptor with its defaults: the same bytes for the same
// descriptor, and Read returns an equal one from them.
func (d *Descriptor) Marshal() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		// Strings, numbers and booleans can always be written.
		panic("descriptor: " + err.Error())
	}
	return b.Bytes()
}
