// A send server in Go, as a peer of handbell serve: net/http in front, github.com/sideshow/apns2
// behind a channel. It takes the same calls and keeps nothing: a send that is answered is lost when
// the process ends. It knows its people by heart, and one template.
package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
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
	InFlight int    `json:"in_flight"`
	Port     int    `json:"port"`
	People   int    `json:"people"`
}

type text struct {
	Title string `json:"title"`
	Body  string `json:"body"`
}

type send struct {
	Notification struct {
		text
		Badge      *int                   `json:"badge"`
		URL        string                 `json:"url"`
		UserInfo   map[string]interface{} `json:"user_info"`
		CollapseID string                 `json:"collapse_id"`
		ThreadID   string                 `json:"thread_id"`
		Priority   int                    `json:"priority"`
		TTL        *int64                 `json:"ttl"`
		Languages  map[string]text        `json:"languages"`
		Template   string                 `json:"template"`
		Variables  map[string]interface{} `json:"variables"`
	} `json:"notification"`
	Recipients     json.RawMessage `json:"recipients"`
	Urgency        string          `json:"urgency"`
	IdempotencyKey string          `json:"idempotency_key"`
}

var (
	setup  job
	people = map[string]string{}
	queue  = make(chan *apns2.Notification, 10000)
	sends  atomic.Int64
	pushes atomic.Int64
)

func main() {
	must(json.Unmarshal([]byte(os.Args[1]), &setup))
	for number := 1; number <= setup.People; number++ {
		mail := fmt.Sprintf("user%d@example.com", number)
		digest := sha256.Sum256([]byte(mail))
		people[mail] = hex.EncodeToString(digest[:])
	}
	client := connect()
	for range setup.InFlight {
		go push(client)
	}
	http.HandleFunc("POST /send", accept)
	http.HandleFunc("GET /sent", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(answer, `{"sends":%d,"pushes":%d}`, sends.Load(), pushes.Load())
	})
	must(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", setup.Port), nil))
}

func connect() *apns2.Client {
	key, err := token.AuthKeyFromFile(setup.KeyFile)
	must(err)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: setup.KeyID, TeamID: setup.TeamID})
	client.Host = setup.URL
	authority, err := os.ReadFile(setup.CAFile)
	must(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	transport := client.HTTPClient.Transport.(*http2.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
	return client
}

func push(client *apns2.Client) {
	for notification := range queue {
		response, err := client.Push(notification)
		must(err)
		if !response.Sent() {
			log.Fatal(response.Reason)
		}
		pushes.Add(1)
	}
}

func accept(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	var asked send
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil || request.Header.Get("Authorization") != "Bearer key" {
		http.Error(answer, "refused", http.StatusBadRequest)
		return
	}
	for _, device := range devices(asked.Recipients) {
		queue <- compose(&asked, device)
	}
	number := sends.Add(1)
	answer.Header().Set("Content-Type", "application/json")
	answer.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(answer, `{"id":"%015x","warnings":[]}`, number)
}

func devices(recipients json.RawMessage) []string {
	var named []string
	var single string
	if json.Unmarshal(recipients, &single) == nil {
		named = []string{single}
	} else {
		must(json.Unmarshal(recipients, &named))
	}
	found := make([]string, 0, len(named))
	for _, one := range named {
		if device, known := people[one]; known {
			found = append(found, device)
		} else {
			found = append(found, one)
		}
	}
	return found
}

func compose(asked *send, device string) *apns2.Notification {
	told := asked.Notification
	title, body := told.Title, told.Body
	if told.Template == "order" {
		fill := strings.NewReplacer(
			"{{ name }}", fmt.Sprint(told.Variables["name"]), "{{ order }}", fmt.Sprint(told.Variables["order"]))
		title = fill.Replace("Order {{ order }}")
		body = fill.Replace("Hello {{ name }}, your order {{ order }} is on its way")
	}
	content := payload.NewPayload().AlertTitle(title).AlertBody(body)
	if told.Badge != nil {
		content.Badge(*told.Badge)
	}
	if told.URL != "" {
		content.Custom("url", told.URL)
	}
	if told.ThreadID != "" {
		content.ThreadID(told.ThreadID)
	}
	for name, value := range told.UserInfo {
		content.Custom(name, value)
	}
	notification := &apns2.Notification{
		DeviceToken: device, Topic: setup.Topic, Payload: content,
		CollapseID: told.CollapseID, Priority: told.Priority,
	}
	if told.TTL != nil {
		notification.Expiration = time.Now().Add(time.Duration(*told.TTL) * time.Second)
	}
	return notification
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
