package relay

import "golang.org/x/sys/unix"

const (
	// pipeSize is what one splice moves at most, and the most that a user's pipe
	// may hold (pipe-max-size in proc_sys_fs(5)).
	pipeSize = 1 << 20
	// maxPipes bounds the pipes of a loop. Each holds bytes of a connection whose
	// other side takes no more just now; what comes after these is copied. The
	// kernel gives a user 64 MiB of pipes at full size, and then tiny ones
	// (pipe-user-pages-soft in proc_sys_fs(5)).
	maxPipes = 64
	// sparePipes is how many empty ones are kept: a container has few streams at a
	// time, and a user may have many containers.
	sparePipes = 2
)

// pipe is what splice(2) needs between two sockets.
type pipe struct{ in, out int }

// pipes are those of one loop. A connection has one only while bytes are in it.
type pipes struct {
	spare []pipe
	used  int
}

// get returns an empty pipe, or says that there is none to be had.
func (p *pipes) get() (pipe, bool) {
	if n := len(p.spare); n > 0 {
		one := p.spare[n-1]
		p.spare = p.spare[:n-1]
		p.used++
		return one, true
	}
	if p.used >= maxPipes {
		return pipe{}, false
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return pipe{}, false
	}
	// A smaller one does as well.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	p.used++
	return pipe{in: fds[1], out: fds[0]}, true
}

// put takes a pipe back: an empty one, or one whose bytes nobody wants any more.
func (p *pipes) put(one pipe, empty bool) {
	p.used--
	if empty && len(p.spare) < sparePipes {
		p.spare = append(p.spare, one)
		return
	}
	one.close()
}

func (p *pipes) close() {
	for _, one := range p.spare {
		one.close()
	}
	p.spare = nil
}

func (p pipe) close() {
	closeSocket(p.in)
	closeSocket(p.out)
}
