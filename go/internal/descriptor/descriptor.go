// Package descriptor holds the one JSON file that says everything about a
// container, and reads it strictly: what it returns has been checked, and what
// it refuses is named by JSON path, value and expectation.
package descriptor

import (
	"bytes"
	"encoding/json"
)

// Version is the descriptor version this package reads.
const Version = 1

// Descriptor describes one container. Read returns it with every default
// filled in, so that no other package knows a default.
type Descriptor struct {
	Version   int        `json:"version"`
	Name      string     `json:"name"`
	System    System     `json:"system"`
	Root      Root       `json:"root"`
	Mounts    []Mount    `json:"mounts,omitempty"`
	RootOwned []string   `json:"rootOwned,omitempty"`
	Devices   []string   `json:"devices,omitempty"`
	IDs       IDs        `json:"ids"`
	Network   Network    `json:"network"`
	Resources *Resources `json:"resources,omitempty"`
	Ready     Ready      `json:"ready"`
}

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
	Mode     string            `json:"mode"`
	Outbound bool              `json:"outbound,omitempty"`
	DNS      []string          `json:"dns,omitempty"`
	Hosts    map[string]string `json:"hosts,omitempty"`
	Ports    []Port            `json:"ports,omitempty"`
}

// Port is a host port relayed to a container port.
type Port struct {
	Host      int    `json:"host"`
	Container int    `json:"container"`
	Protocol  string `json:"protocol"`
	Address   string `json:"address"`
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
