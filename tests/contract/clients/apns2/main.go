// Sends the pushes that it reads with github.com/sideshow/apns2, and writes what became of each.
// Its input and output are those of every program here; see judgements.py.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
)

func main() {
	client := connect()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	var pushes []*apns2.Notification
	for lines.Scan() {
		pushes = append(pushes, read(strings.Split(lines.Text(), "\t")))
	}
	results := make([]string, len(pushes))
	var group sync.WaitGroup
	for place, push := range pushes {
		group.Add(1)
		send := func() {
			defer group.Done()
			results[place] = result(client.Push(push))
		}
		if place == 0 || os.Getenv("CLIENT_IN_TURN") != "" {
			send() // the first alone, as Apple asks of a new connection
		} else {
			go send()
		}
	}
	group.Wait()
	fmt.Println(strings.Join(results, "\n"))
}

func connect() *apns2.Client {
	key, err := token.AuthKeyFromFile(os.Getenv("CLIENT_KEY_FILE"))
	must(err)
	client := apns2.NewTokenClient(&token.Token{
		AuthKey: key, KeyID: os.Getenv("CLIENT_KEY_ID"), TeamID: os.Getenv("CLIENT_TEAM_ID"),
	})
	client.Host = os.Getenv("CLIENT_URL")
	authority, err := os.ReadFile(os.Getenv("CLIENT_CA_FILE"))
	must(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	transport := client.HTTPClient.Transport.(*http2.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
	return client
}

func read(fields []string) *apns2.Notification {
	push := &apns2.Notification{
		DeviceToken: fields[0],
		Topic:       fields[1],
		PushType:    apns2.EPushType(fields[2]),
		CollapseID:  fields[5],
		ApnsID:      fields[6],
		Payload:     []byte(fields[7]),
	}
	if fields[3] != "" {
		priority, err := strconv.Atoi(fields[3])
		must(err)
		push.Priority = priority
	}
	if fields[4] != "" {
		seconds, err := strconv.ParseInt(fields[4], 10, 64)
		must(err)
		push.Expiration = time.Unix(seconds, 0)
	}
	return push
}

func result(response *apns2.Response, err error) string {
	if err != nil {
		return fmt.Sprintf("0\t%s\t\t", strings.ReplaceAll(err.Error(), "\t", " "))
	}
	since := ""
	if !response.Timestamp.IsZero() {
		since = strconv.FormatInt(response.Timestamp.UnixMilli(), 10)
	}
	return fmt.Sprintf("%d\t%s\t%s\t%s", response.StatusCode, response.Reason, since, response.ApnsID)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
