use std::error::Error;

use countersign_mesh::session::Session;
use inventory::CheckStockRequest;
use inventory::inventory_client::InventoryClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let session = Session::from_env()?;
    let channel = session.channel("http://127.0.0.1:8081")?;
    let mut inventory = InventoryClient::authenticated(channel, &session);
    let stock = inventory.check_stock(CheckStockRequest { sku: "tea".to_owned() }).await?;
    println!("{} in stock", stock.get_ref().in_stock);
    Ok(())
}
