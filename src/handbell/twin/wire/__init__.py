"""What each push service's side speaks: TLS with HTTP/2 or HTTP/1.1, and faults in them."""
