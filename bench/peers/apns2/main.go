// Sends one alert to each device token of a file with github.com/sideshow/apns2, the way its channel
// example does: one client, and goroutines that take notifications from a channel. Its argument and
// its answer are those of every program of this bench (see bench/job.py).
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
)

type job struct {
	URL      string `json:"url"`
	CAFile   string `json:"ca_file"`
	KeyFile  string `json:"key_file"`
	KeyID    string `json:"key_id"`
	TeamID   string `json:"team_id"`
	Topic    string `json:"topic"`
	Title    string `json:"title"`
	Body     string `json:"body"`
	Tokens   string `json:"tokens"`
	Count    int    `json:"count"`
	WarmUp   int    `json:"warm_up"`
	InFlight int    `json:"in_flight"`
}

type result struct {
	Accepted   int64   `json:"accepted"`
	Refused    int64   `json:"refused"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

func main() {
	var asked job
	must(json.Unmarshal([]byte(os.Args[1]), &asked))
	client := connect(asked)
	tokens := read(asked.Tokens, asked.WarmUp+asked.Count)
	send(client, asked, tokens[:1]) // opens the one connection before all goroutines want it
	send(client, asked, tokens[:asked.WarmUp])
	started, cpu := time.Now(), cpuSeconds()
	measured := send(client, asked, tokens[asked.WarmUp:])
	measured.Seconds = time.Since(started).Seconds()
	measured.CPUSeconds = cpuSeconds() - cpu
	must(json.NewEncoder(os.Stdout).Encode(measured))
}

func connect(asked job) *apns2.Client {
	key, err := token.AuthKeyFromFile(asked.KeyFile)
	must(err)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: asked.KeyID, TeamID: asked.TeamID})
	client.Host = asked.URL
	authority, err := os.ReadFile(asked.CAFile)
	must(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	transport := client.HTTPClient.Transport.(*http2.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
	return client
}

func read(path string, count int) []string {
	file, err := os.Open(path)
	must(err)
	defer file.Close()
	tokens := make([]string, 0, count)
	for lines := bufio.NewScanner(file); len(tokens) < count && lines.Scan(); {
		tokens = append(tokens, lines.Text())
	}
	return tokens
}

func send(client *apns2.Client, asked job, tokens []string) result {
	var counted result
	var group sync.WaitGroup
	notifications := make(chan *apns2.Notification, 100)
	for range asked.InFlight {
		group.Add(1)
		go func() {
			defer group.Done()
			for notification := range notifications {
				response, err := client.Push(notification)
				must(err)
				if response.Sent() {
					atomic.AddInt64(&counted.Accepted, 1)
				} else {
					atomic.AddInt64(&counted.Refused, 1)
				}
			}
		}()
	}
	for _, device := range tokens {
		notifications <- &apns2.Notification{
			DeviceToken: device,
			Topic:       asked.Topic,
			Payload:     payload.NewPayload().AlertTitle(asked.Title).AlertBody(asked.Body),
		}
	}
	close(notifications)
	group.Wait()
	return counted
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
