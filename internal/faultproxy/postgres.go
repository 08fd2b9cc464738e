package faultproxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Postgres stands before a PostgreSQL, for clients that ask for no TLS, and counts the queries of all its connections.
type Postgres struct {
	// Port is where it listens, on loopback.
	Port int

	server string

	mu      sync.Mutex
	queries int
	at      int
	fault   QueryFault
}

// Query is a message of the simple protocol, or all messages of the extended one up to Sync, and what comes back.
type Query struct {
	asked          []byte
	client, server net.Conn
}

// QueryFault is what becomes of a query instead of its passing. An error ends the connection.
type QueryFault func(q *Query) error

// errEnd ends a connection.
var errEnd = errors.New("the connection is to end")

// NewPostgres starts a proxy that lives as long as the test.
func NewPostgres(tb testing.TB, host string, port int) *Postgres {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", net.JoinHostPort(host, "0"))
	require.NoError(tb, err)
	address, ok := listener.Addr().(*net.TCPAddr)
	require.True(tb, ok)
	p := &Postgres{Port: address.Port, server: net.JoinHostPort(host, strconv.Itoa(port))}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { p.serve(tb, client) })
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		connections.Wait()
	})
	return p
}

// At counts from anew, and does it to the n-th query from now on.
func (p *Postgres) At(n int, fault QueryFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queries, p.at, p.fault = 0, n, fault
}

// Queries counts the queries since At.
func (p *Postgres) Queries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queries
}

func (p *Postgres) count() QueryFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queries++; p.queries == p.at {
		return p.fault
	}
	return (*Query).pass
}

// serve carries one connection, until either side or a fault ends it, or the test is over.
func (p *Postgres) serve(tb testing.TB, client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-tb.Context().Done():
			_ = client.Close()
			_ = server.Close()
		case <-over:
		}
	}()
	if logIn(client, server) != nil {
		return
	}
	for {
		asked, err := until(client, "QS")
		if err != nil {
			return
		}
		q := &Query{asked: asked, client: client, server: server}
		if p.count()(q) != nil {
			return
		}
	}
}

// The backend's authentication requests that want an answer: a password, of some kind, or a step of SASL.
const lastWithoutAnswer = 12 // AuthenticationSASLFinal

// logIn carries the start-up packet, which has no type, and the exchange up to the server's first ReadyForQuery.
func logIn(client, server net.Conn) error {
	startUp, err := body(client)
	if err != nil {
		return err
	}
	if _, err := server.Write(startUp); err != nil {
		return err
	}
	for {
		kind, message, err := messageOf(server)
		if err != nil {
			return err
		}
		if _, err := client.Write(message); err != nil {
			return err
		}
		if kind == 'Z' {
			return nil
		}
		if kind != 'R' {
			continue
		}
		if request := binary.BigEndian.Uint32(message[5:]); request == 0 || request == lastWithoutAnswer {
			continue
		}
		_, answer, err := messageOf(client)
		if err != nil {
			return err
		}
		if _, err := server.Write(answer); err != nil {
			return err
		}
	}
}

// pass asks the server and answers the client.
func (q *Query) pass() error {
	answer, err := q.ask()
	if err != nil {
		return err
	}
	_, err = q.client.Write(answer)
	return err
}

// ask has the server do what was asked and returns all of its answer.
func (q *Query) ask() ([]byte, error) {
	if _, err := q.server.Write(q.asked); err != nil {
		return nil, err
	}
	return until(q.server, "Z")
}

// LoseQuery ends the connection; the server never gets the query.
func LoseQuery(*Query) error { return errEnd }

// LoseAnswer ends the connection when the server has answered: nobody is told.
func LoseAnswer(q *Query) error {
	_, _ = q.ask() // the connection ends in any case
	return errEnd
}

// DelayQuery lets the query pass after a while.
func DelayQuery(d time.Duration) QueryFault {
	return func(q *Query) error {
		time.Sleep(d)
		return q.pass()
	}
}

// LoseQueryAnd does something and ends the connection: kill the watcher before its query is answered.
func LoseQueryAnd(do func()) QueryFault {
	return func(*Query) error {
		do()
		return errEnd
	}
}

// AdminShutdown is a server that is stopped: it says so, with 57P01, and ends the connection.
func AdminShutdown(q *Query) error {
	fields := []byte("SFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command\x00\x00")
	answer := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(len(fields)+4))...) //nolint:gosec // 80 bytes
	_, _ = q.client.Write(append(answer, fields...))                                            // the connection ends in any case
	return errEnd
}

// until reads messages up to one of these kinds.
func until(from io.Reader, kinds string) ([]byte, error) {
	var read []byte
	for {
		kind, message, err := messageOf(from)
		if err != nil {
			return nil, err
		}
		read = append(read, message...)
		for _, last := range []byte(kinds) {
			if kind == last {
				return read, nil
			}
		}
	}
}

// messageOf reads a message whole: its kind, its length, which counts itself, and the rest.
func messageOf(from io.Reader) (kind byte, message []byte, err error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(from, first); err != nil {
		return 0, nil, err
	}
	rest, err := body(from)
	return first[0], slices.Concat(first, rest), err
}

func body(from io.Reader) ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(from, length); err != nil {
		return nil, err
	}
	rest := make([]byte, max(0, int(binary.BigEndian.Uint32(length))-len(length)))
	_, err := io.ReadFull(from, rest)
	return slices.Concat(length, rest), err
}
