// Package forward carries TCP connections from this network namespace into another one.
package forward

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Run listens on each LISTEN address here and connects to DIAL (IPv4) in the namespace at NETNS:
// `forward NETNS LISTEN=DIAL...`. A half-closed connection stays half-closed on the other side.
func Run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: forward NETNS LISTEN=DIAL...")
	}
	sockets := make(chan chan<- made)
	entered := make(chan error, 1)
	go makeSockets(args[0], entered, sockets)
	if err := <-entered; err != nil {
		return fmt.Errorf("enter %s: %w", args[0], err)
	}
	failed := make(chan error)
	for _, pair := range args[1:] {
		listen, dial, found := strings.Cut(pair, "=")
		if !found {
			return fmt.Errorf("%q is not LISTEN=DIAL", pair)
		}
		target, err := net.ResolveTCPAddr("tcp4", dial)
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp4", listen)
		if err != nil {
			return err
		}
		go func() { failed <- accept(listener, target, sockets) }()
	}
	return <-failed
}

// made is a fresh TCP socket of the other namespace, or why there is none.
type made struct {
	fd  int
	err error
}

// makeSockets moves its thread into the namespace and makes sockets there: a socket belongs to the
// namespace it was made in, wherever it is used, so the slow part (connecting) happens elsewhere.
func makeSockets(netns string, entered chan<- error, wanted <-chan chan<- made) {
	runtime.LockOSThread() // for good: this thread must never run anything else
	namespace, err := os.Open(netns)
	if err == nil {
		err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		namespace.Close()
	}
	entered <- err
	if err != nil {
		return
	}
	for reply := range wanted {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		reply <- made{fd, err}
	}
}

func accept(listener net.Listener, target *net.TCPAddr, sockets chan<- chan<- made) error {
	for {
		client, err := listener.Accept()
		if err != nil {
			if errors.Is(err, unix.EMFILE) {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return err
		}
		go func() {
			defer client.Close()
			server, err := connect(target, sockets)
			if err != nil {
				log.Printf("%s: %v", target, err)
				return
			}
			defer server.Close()
			splice(client.(*net.TCPConn), server)
		}()
	}
}

func connect(target *net.TCPAddr, sockets chan<- chan<- made) (*net.TCPConn, error) {
	reply := make(chan made, 1)
	sockets <- reply
	socket := <-reply
	if socket.err != nil {
		return nil, socket.err
	}
	address := &unix.SockaddrInet4{Port: target.Port}
	copy(address.Addr[:], target.IP.To4())
	for {
		err := unix.Connect(socket.fd, address)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Close(socket.fd)
			return nil, err
		}
		break
	}
	file := os.NewFile(uintptr(socket.fd), "forwarded")
	defer file.Close() // FileConn duplicates it
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// splice copies both ways until both directions have ended, or one of them broke.
func splice(a, b *net.TCPConn) {
	ended := make(chan error, 2)
	copyOne := func(to, from *net.TCPConn) {
		_, err := io.Copy(to, from)
		if err == nil {
			err = to.CloseWrite()
		}
		ended <- err
	}
	go copyOne(a, b)
	go copyOne(b, a)
	if err := <-ended; err != nil {
		return // the deferred closes reset the other direction
	}
	<-ended
}
