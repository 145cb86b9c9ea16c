use std::time::Duration;
use std::{env, fs};

use runloop_rmp::{Client, Map, Options, Value};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = env::var("RUNLOOP_HOME")?;
    let credential = fs::read(format!("{home}/keys/operator.key"))?;
    let options = Options { credential: Some(credential), client: "howto".into(), ..Options::default() };
    let mut client = Client::connect(format!("{home}/run/rmp.sock"), options)?;

    client.subscribe("demo/*")?;
    let receipt =
        client.publish("demo/greeting", "observation.generic.v1", Map::new().with("text", "hello"))?;
    println!("{} receiver", receipt.receivers);

    if let Some(delivery) = client.next_delivery(Some(Duration::from_secs(5)))? {
        let text = delivery.payload.get("text").and_then(Value::as_str).unwrap_or("");
        println!("{}: {}", delivery.topic, text);
    }

    client.consume("rust-books", "durable/orders/*", "next")?;
    client.publish_durable("durable/orders/new", "observation.generic.v1", Map::new().with("order", 7))?;
    if let Some(order) = client.next_delivery(Some(Duration::from_secs(5)))? {
        println!("order {}", order.payload.get("order").and_then(Value::as_integer).unwrap_or(0));
        client.ack(&order)?;
    }

    if let Err(error) = client.publish("agent/writer", "observation.generic.v1", "psst") {
        println!("{}, {}", error.family.name(), error.code);
    }
    Ok(())
}
