// Package keeper is the process that stands inside a container's user and
// network namespace but in the host's mount and pid namespace, where nothing in
// the container sees it. It starts processes in the container and opens sockets
// in its network on the supervisor's behalf.
//
// The whole protocol. All of it are JSON messages over SOCK_SEQPACKET, with
// descriptors in brackets; seqpacket.MaxMessage and MaxFDs bound them. Requests
// come from the supervisor, whose own socket only the user and root get to
// (seqpacket.Accept). The supervisor's end of "requests" closing means that the
// supervisor is gone: the keeper then kills init, waits for it, sweeps
// what the supervisor left (Guard) and ends.
//
//	supervisor            requests                          keeper
//	   ── userns.Start: hello, mapped ─────────────────────▶
//	   ── Guard [lock, runtime folder, state folder] ───────▶
//	   ── Request{boot, Boot} [reply, cgroup?, listener, …] ▶ ─┐
//	   ── Request{exec, Exec} [reply, stdin, stdout, stderr,
//	                           held until it has ended?] ──▶  │ in any order, any
//	   ── Request{sockets, Sockets} [reply] ───────────────▶  │ number of times
//	   ── Request{listen, Listen} [reply] ─────────────────▶  │
//	   ── Request{dial, Dial} [reply] ─────────────────────▶  │
//	   ── Request{forget, Dial} [reply] ───────────────────▶  │
//	   ── Request{namespaces} [reply] ─────────────────────▶  │
//	   ── Request{limit, Limit} [reply] ───────────────────▶ ─┘
//	   ── Request{leave} ──────────────────────────────────▶  kills init, ends
//
//	on a boot's reply:      Reply{started} [init's pidfd, console, console's other end]
//	                        Reply{exited, status}
//	on an exec's reply:     Reply{started} [terminal?]
//	                        Reply{exited, status}
//	   client ── Signal ──▶ sent to the process; end-of-file is SIGHUP
//	on a sockets' reply:    Reply{started} [socket, …]
//	on a listen's:          Reply{started} [socket, …]
//	on a dial's:            Reply{started} [socket]
//	on a forget's, a limit's: Reply{started}
//	on a namespaces' reply: Reply{started} [user, network]
//	instead of any of them: Reply{failed, error, status}
//
// Between the keeper and the process that becomes init, which is born with the
// listeners that are handed over:
//
//	keeper ── Boot ──▶ init: makes the root, sets its parent-death signal
//	keeper ◀── Reply{started} [console, its other end, devpts] ── init
//	keeper ── Signal{} ("go") ──▶ init: execve; the socket's end-of-file is success
//	keeper ◀── Reply{failed, error} ── init, if it is not
package keeper

import (
	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/nft"
	"github.com/nix-user-containers/nuc/go/internal/rootfs"
	"github.com/nix-user-containers/nuc/go/internal/socket"
)

// Roles are the first argument of the processes that this package runs.
const (
	RoleKeeper = "nuc-keeper"
	RoleInit   = "nuc-init"
)

// Operations of a Request.
const (
	OpBoot    = "boot"
	OpExec    = "exec"
	OpSockets = "sockets"
	OpListen  = "listen"
	OpDial    = "dial"
	// OpForget removes a Unix socket that nobody listens on any more.
	OpForget = "forget"
	// OpNamespaces hands the keeper's namespaces over: its /proc is closed to
	// the supervisor as to everyone.
	OpNamespaces = "namespaces"
	// OpLimit replaces the rules of the container's network.
	OpLimit = "limit"
	// OpLeave, sent without a place for an answer, ends the keeper: the
	// supervisor lives and sweeps by itself.
	OpLeave = "leave"
)

// Guard is what the keeper sweeps if the supervisor dies.
type Guard struct {
	Cgroup cgroup.Path `json:"cgroup"`
	// PrivateNetwork: the keeper has a network namespace of its own, whose
	// loopback it must bring up.
	PrivateNetwork bool `json:"privateNetwork"`
	// FixedNetwork: nobody in the container has rights over its network.
	FixedNetwork bool `json:"fixedNetwork,omitempty"`
}

// Request asks for one thing. Its first descriptor is where the answer goes.
type Request struct {
	Op      string   `json:"op"`
	Boot    *Boot    `json:"boot,omitempty"`
	Exec    *Exec    `json:"exec,omitempty"`
	Sockets *Sockets `json:"sockets,omitempty"`
	Listen  *Listen  `json:"listen,omitempty"`
	// Count is how many consecutive ports Listen is for, all or none; 0 is 1.
	Count int    `json:"count,omitempty"`
	Dial  *Dial  `json:"dial,omitempty"`
	Limit *Limit `json:"limit,omitempty"`
}

// Boot asks to start init.
type Boot struct {
	Plan        rootfs.Plan `json:"plan"`
	Hostname    string      `json:"hostname"`
	Init        string      `json:"init"`
	Arguments   []string    `json:"arguments,omitempty"`
	Environment []string    `json:"environment"`
	// Rows and Columns are the console's size; 0 leaves it unset.
	Rows    uint16 `json:"rows,omitempty"`
	Columns uint16 `json:"columns,omitempty"`
	// Listeners is how many sockets come along, to be handed to init as
	// sd_listen_fds(3) has it.
	Listeners int `json:"listeners,omitempty"`
	// FixedNetwork is the Guard's.
	FixedNetwork bool `json:"fixedNetwork,omitempty"`
	// Unfiltered leaves init, and what exec starts beside it, without the filter
	// of system calls.
	Unfiltered bool `json:"unfiltered,omitempty"`
}

// Exec asks to start a process in the container.
type Exec struct {
	// Arguments, the first of which is the program: a path, or a name to be
	// looked up in the container's PATH. Empty means the user's login shell.
	Arguments []string `json:"arguments,omitempty"`
	// Environment is added to the one that is built: NAME=value.
	Environment []string `json:"environment,omitempty"`
	// User is USER[:GROUP], by name or number; empty is root.
	User string `json:"user,omitempty"`
	// Folder is the working directory; empty is the user's home, or /.
	Folder string `json:"folder,omitempty"`
	// Terminal asks for a terminal of the container's own, of this size.
	Terminal bool   `json:"terminal,omitempty"`
	Rows     uint16 `json:"rows,omitempty"`
	Columns  uint16 `json:"columns,omitempty"`
}

// Sockets asks for unconnected sockets in the container's network namespace.
// A socket belongs to the namespace that it was made in, wherever it is
// connected from (socket(7), network_namespaces(7)).
type Sockets struct {
	Network string `json:"network"` // tcp4, tcp6, udp4, udp6
	Count   int    `json:"count"`
}

// MaxSockets bounds Sockets.Count, and the Count of a Listen.
const MaxSockets = 64

// Listen asks for a bound socket of the container's network namespace, a stream
// listening, or for several. A Unix socket's path is one of the container's.
type Listen = socket.Place

// Dial asks for a connection to a Unix stream socket of the container's.
type Dial struct {
	Path string `json:"path"`
}

// MaxRules bounds Limit.Rules: what is written for the kernel is far larger than
// the message.
const MaxRules = 1 << 16

// Limit is what may leave the container's network, in full.
type Limit struct {
	Rules []nft.Rule `json:"rules"`
}

// Signal is a signal's number for a process that Exec started.
type Signal struct {
	Signal int `json:"signal"`
}

// Kinds of a Reply.
const (
	Started = "started"
	Exited  = "exited"
	Failed  = "failed"
)

// Reply answers a Request.
type Reply struct {
	Kind string `json:"kind"`
	// Error says what failed, in one line.
	Error string `json:"error,omitempty"`
	// Status is the wait status as wait4(2) gives it (Exited), or the exit
	// status that a shell would give (Failed: 126 not executable, 127 not
	// found, 125 for nuc's own errors).
	Status int `json:"status,omitempty"`
	// Errno is the kernel's, where it was the kernel that refused.
	Errno int `json:"errno,omitempty"`
	// Port is the one of a Listen that was refused, Holder what listens there
	// already, where that is known.
	Port   int    `json:"port,omitempty"`
	Holder string `json:"holder,omitempty"`
}
