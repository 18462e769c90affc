package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The test binary is the clients and the service of relay rows as well, each in
// a process of its own: loadVariable says which.
const loadVariable = "NUC_BENCH_LOAD"

const (
	// message is the size of a request, and of its answer.
	message = 64
	// clients is how many make connections at a time.
	clients = 8
	// loadTime is how long a load goes on.
	loadTime = 2 * time.Second
)

// load runs a job: its words are what it is, and a port of 127.0.0.1.
func load(job string) int {
	words := strings.Fields(job)
	var err error
	switch words[0] {
	case "serve":
		err = serve(words[1])
	case "connect":
		err = connectAll(words[1])
	case "ask":
		err = ask(words[1])
	case "sink":
		err = sink(words[1])
	case "pour":
		err = pour(words[1])
	case "hold":
		err = hold(words[1], words[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve answers every request with the same.
func serve(port string) error {
	l, err := net.Listen("tcp4", "0.0.0.0:"+port)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buffer := make([]byte, message)
			for {
				if _, err := io.ReadFull(c, buffer); err != nil {
					return
				}
				if _, err := c.Write(buffer); err != nil {
					return
				}
			}
		}()
	}
}

func request(c net.Conn, buffer []byte) error {
	if _, err := c.Write(buffer); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buffer)
	return err
}

// dialLoad bounds a connection's life: what hangs is an error.
func dialLoad(port string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp4", "127.0.0.1:"+port, 10*time.Second)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
	}
	return c, err
}

// connectAll prints how many connections were made a second.
func connectAll(port string) error {
	var made atomic.Int64
	var all sync.WaitGroup
	failures := make(chan error, clients)
	began := time.Now()
	for range clients {
		all.Go(func() {
			buffer := make([]byte, message)
			for time.Since(began) < loadTime {
				c, err := dialLoad(port)
				if err == nil {
					err = request(c, buffer)
					c.Close()
				}
				if err != nil {
					failures <- err
					return
				}
				made.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	close(failures)
	if err := <-failures; err != nil {
		return err
	}
	fmt.Println(float64(made.Load()) / took.Seconds())
	return nil
}

// ask prints half of the answers' times, and nearly all: p50 and p99, in µs.
func ask(port string) error {
	c, err := dialLoad(port)
	if err != nil {
		return err
	}
	defer c.Close()
	var times []time.Duration
	buffer := make([]byte, message)
	for began := time.Now(); time.Since(began) < loadTime; {
		asked := time.Now()
		if err := request(c, buffer); err != nil {
			return err
		}
		times = append(times, time.Since(asked))
	}
	slices.Sort(times)
	us := func(quantile float64) float64 {
		return float64(times[int(quantile*float64(len(times)-1))]) / float64(time.Microsecond)
	}
	fmt.Println(us(0.5), us(0.99))
	return nil
}

// handed stands for the port of a socket that systemd gives (sd_listen_fds(3)).
const handed = "handed"

// sink takes what is sent, and answers with how much it was.
func sink(port string) error {
	var l net.Listener
	var err error
	if port == handed {
		l, err = net.FileListener(os.NewFile(3, "listener"))
	} else {
		l, err = net.Listen("tcp4", "127.0.0.1:"+port)
	}
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buffer := make([]byte, streamBuffer)
			sum := 0
			for {
				n, err := c.Read(buffer)
				sum += n
				if err != nil {
					break
				}
			}
			fmt.Fprintln(c, sum)
		}()
	}
}

// streamBuffer is what iperf3 writes and reads at a time, too.
const streamBuffer = 128 << 10

// pour prints how many Gbit/s a sink took.
func pour(port string) error {
	c, err := dialLoad(port)
	if err != nil {
		return err
	}
	defer c.Close()
	buffer := make([]byte, streamBuffer)
	began := time.Now()
	for time.Since(began) < loadTime {
		if _, err := c.Write(buffer); err != nil {
			return err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	var sum float64
	if _, err := fmt.Fscan(c, &sum); err != nil {
		return err
	}
	fmt.Println(8 * sum / 1e9 / time.Since(began).Seconds())
	return nil
}

// hold opens connections, says so, and holds them until its input ends.
func hold(port, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	buffer := make([]byte, message)
	for range n {
		c, err := dialLoad(port)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := request(c, buffer); err != nil {
			return err
		}
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// ownFiles is what a process has open besides the two sockets of connections.
const ownFiles = 500

// openFiles is how many this process may have open, and those that it starts: root
// of the whole machine may have more than its limit (CAP_SYS_RESOURCE).
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	content, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return int(limit.Max)
	}
	most, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 32)
	if err != nil || most <= limit.Max {
		return int(limit.Max)
	}
	raised := syscall.Rlimit{Cur: limit.Cur, Max: most}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) != nil {
		return int(limit.Max)
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	return int(most)
}

// manyFiles raises the limit of open files for this process and those it
// starts, where it may.
func manyFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= n {
		return nil
	}
	hard := limit.Max
	limit.Cur, limit.Max = n, max(limit.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("needs %d open files a process, and the limit is %d (%w)", n, hard, errors.ErrUnsupported)
	}
	return nil
}
